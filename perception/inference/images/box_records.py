"""Detections as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from perception.inference.images.results import Detections, MaskCrop

# Finer than float32 resolves in a 1000-pixel image, and short in the file.
_BOX_DIGITS = 5
_ANGLE_DIGITS = 6


def box_entries(
    found: Detections, width: int, height: int, factor: int, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """`[{"category_id", "label", "bbox", "score"}]`, best first.

    `bbox` is COCO's `[x, y, width, height]` in original pixels and `category_id` the label plus one. A rotated box adds
    `rbox` (cx, cy, w, h, radians) and its four corners as `segmentation` (COCO polygon); a mask adds `segmentation`
    (COCO RLE of the original's size).

    Args:
        found: what to write.
        width, height: the upright original's size.
        factor: original pixels per pixel of the coordinates of `found`.
        classes: names by label.
    """
    bounds = found.bounds().astype(np.float64) * factor
    if factor > 1 and not found.rotated:
        # The last decoded pixel may stand for less than `factor` original ones.
        bounds = bounds.clip(0, [width, height, width, height])
    corners = found.corners().astype(np.float64) * factor if found.rotated else None
    entries = []
    for index, (x1, y1, x2, y2) in enumerate(bounds.tolist()):
        label = int(found.labels[index])
        entry: dict[str, Any] = {
            "category_id": label + 1,
            "label": classes[label],
            "bbox": [round(value, _BOX_DIGITS) for value in (x1, y1, x2 - x1, y2 - y1)],
            "score": exact_score(found.scores[index]),
        }
        if corners is not None:
            *lengths, angle = found.boxes[index].astype(np.float64).tolist()
            entry["rbox"] = [round(value * factor, _BOX_DIGITS) for value in lengths] + [round(angle, _ANGLE_DIGITS)]
            entry["segmentation"] = [[round(value, _BOX_DIGITS) for value in corners[index].ravel().tolist()]]
        if found.masks is not None:
            entry["segmentation"] = _encode(found.masks[index], width, height, factor)
        entries.append(entry)
    return entries


def exact_score(score: np.float32) -> float:
    """The shortest number that is the same in float32: rounded scores would make ties."""
    return float(str(np.float32(score)))


def _encode(mask: MaskCrop, width: int, height: int, factor: int) -> dict[str, Any]:
    """COCO's run lengths of the whole image, without a whole image in memory."""
    inside, left, top = mask.inside, mask.left * factor, mask.top * factor
    if factor > 1:
        inside = inside.repeat(factor, 0).repeat(factor, 1)
    inside = inside[: height - top, : width - left]
    # Runs go down the columns. Between two changes of a column, padded by zeros, lies a run of ones.
    edges = np.diff(np.pad(inside.T, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    column, row = np.nonzero(edges)  # (column, row): starts and ends in turn
    places = (left + column) * height + top + row
    # A run to the bottom edge goes on at the top of the next column.
    starts, ends = places[0::2], places[1::2]
    apart = np.flatnonzero(starts[1:] != ends[:-1])
    starts, ends = np.r_[starts[:1], starts[1:][apart]], np.r_[ends[:-1][apart], ends[-1:]]
    counts = np.diff(np.r_[0, np.stack([starts, ends], 1).ravel(), width * height]).tolist()
    if len(counts) > 1 and counts[-1] == 0:
        counts.pop()
    encoded = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}
