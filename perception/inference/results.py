"""What a detector found in one image, in memory and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

# Finer than float32 resolves in a 1000-pixel image, and short in the file.
_BOX_DIGITS = 5
_SCORE_DIGITS = 6


@dataclass(frozen=True)
class Detections:
    """Detections of one image, best first.

    `boxes` is float32 (N, 4) xyxy in pixels, `scores` float32 (N,), `labels` int64 (N,), `masks` bool
    (N, height, width) or None.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None


def as_record(
    name: str, file_size: int, width: int, height: int, factor: int, detections: Detections, classes: Sequence[str]
) -> dict[str, Any]:
    """The JSON line of one image.

    Args:
        name: the file's path relative to the folder.
        file_size: its bytes; a later run recognises by it that the file has changed.
        width, height: the upright original's size.
        factor: original pixels per pixel of the detections' coordinates.
        detections: what was found.
        classes: names by label.

    Returns:
        `{"file_name", "file_size", "width", "height", "detections": [{"category_id", "label", "bbox", "score"}]}`;
        `bbox` is COCO's `[x, y, width, height]` in original pixels, `category_id` is the label plus one, and
        `segmentation` is added where the model yields masks (COCO RLE of the original's size).
    """
    entries = []
    boxes = detections.boxes.astype(np.float64) * factor
    if factor > 1:
        # The last decoded pixel may stand for less than `factor` original ones.
        boxes = boxes.clip(0, [width, height, width, height])
    for index, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        label = int(detections.labels[index])
        entry = {
            "category_id": label + 1,
            "label": classes[label],
            "bbox": [round(value, _BOX_DIGITS) for value in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(float(detections.scores[index]), _SCORE_DIGITS),
        }
        if detections.masks is not None:
            entry["segmentation"] = _encode(detections.masks[index], width, height, factor)
        entries.append(entry)
    return {"file_name": name, "file_size": file_size, "width": width, "height": height, "detections": entries}


def coco_annotations(record: dict[str, Any], image_id: int, first_id: int) -> list[dict[str, Any]]:
    """A record's detections as entries of a COCO results list, each with an id of its own."""
    return [
        {"id": first_id + index, "image_id": image_id}
        | {key: entry[key] for key in ("category_id", "bbox", "score", "segmentation") if key in entry}
        for index, entry in enumerate(record["detections"])
    ]


def _encode(mask: np.ndarray, width: int, height: int, factor: int) -> dict[str, Any]:
    mask = mask.astype(np.uint8)
    if factor > 1:
        mask = mask.repeat(factor, 0)[:height].repeat(factor, 1)[:, :width]
    encoded = coco_mask.encode(np.asfortranarray(mask))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}
