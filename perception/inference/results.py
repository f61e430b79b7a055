"""What a model found in one image, in memory and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from scipy.ndimage import find_objects

from perception.geometry.rotated_boxes import box_corners, upright_bounds

# Finer than float32 resolves in a 1000-pixel image, and short in the file.
_BOX_DIGITS = 5
_ANGLE_DIGITS = 6

UNLABELLED = 255
"""What a label map holds where there is no class; the labels of classes are below it."""


@dataclass(frozen=True)
class MaskCrop:
    """The part of an image in which an object's mask lies: its first pixel (left, top), and bool (height, width)."""

    left: int
    top: int
    inside: np.ndarray

    def bounds(self) -> tuple[int, int, int, int]:
        """The upright box around it as xyxy."""
        height, width = self.inside.shape
        return self.left, self.top, self.left + width, self.top + height


@dataclass(frozen=True)
class Detections:
    """Detections of one image, best first.

    `boxes` is float32 (N, 4) xyxy in pixels, or (N, 5) rotated (cx, cy, w, h, angle) with w >= h and the angle,
    clockwise on screen, in [-pi/2, pi/2); `scores` float32 (N,), `labels` int64 (N,), `masks` one for each, or None.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: Sequence[MaskCrop] | None = None

    @property
    def rotated(self) -> bool:
        return self.boxes.shape[1] == 5

    def corners(self) -> np.ndarray:
        """(N, 4, 2) in pixels, clockwise on screen."""
        if self.rotated:
            return box_corners(torch.from_numpy(self.boxes)).numpy()
        return self.boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)

    def bounds(self) -> np.ndarray:
        """(N, 4) upright boxes as xyxy."""
        return upright_bounds(torch.from_numpy(self.boxes)).numpy() if self.rotated else self.boxes

    def scaled(self, factor: float) -> Detections:
        """In an image `factor` times as large; without the masks, whose pixels do not scale."""
        sizes = [factor, factor, factor, factor, 1] if self.rotated else [factor] * 4
        return Detections(self.boxes * np.asarray(sizes, self.boxes.dtype), self.scores, self.labels)


@dataclass(frozen=True)
class LabelMap:
    """The class of each pixel of one image: uint8 (height, width), `UNLABELLED` where there is none."""

    labels: np.ndarray


@dataclass(frozen=True)
class Segments:
    """Panoptic segments of one image.

    `ids` is int32 (height, width), 0 where there is no segment; segment `k` has the label `labels[k - 1]`.
    """

    ids: np.ndarray
    labels: np.ndarray


Found = Detections | LabelMap | Segments


def at_size(values: np.ndarray, width: int, height: int, factor: int) -> np.ndarray:
    """Values (height, width) for an original that has `factor` pixels for each of the given ones."""
    return values if factor == 1 else values.repeat(factor, 0)[:height].repeat(factor, 1)[:, :width]


def crop_masks(masks: np.ndarray) -> list[MaskCrop]:
    """Crops of masks that are bool (N, height, width)."""
    crops = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows):
            top, left = int(rows[0]), int(columns[0])
            crops.append(MaskCrop(left, top, mask[top : rows[-1] + 1, left : columns[-1] + 1].copy()))
        else:
            crops.append(MaskCrop(0, 0, np.zeros((0, 0), bool)))
    return crops


def as_record(
    name: str, file_size: int, width: int, height: int, factor: int, found: Found, classes: Sequence[str]
) -> dict[str, Any]:
    """The JSON line of one image.

    Args:
        name: the file's path relative to the folder.
        file_size: its bytes; a later run recognises by it that the file has changed.
        width, height: the upright original's size.
        factor: original pixels per pixel of the coordinates of `found`.
        found: detections, or the class of each pixel.
        classes: names by label.

    Returns:
        `{"file_name", "file_size", "width", "height"}`, and `"detections": [{"category_id", "label", "bbox", "score"}]`
        where `bbox` is COCO's `[x, y, width, height]` in original pixels and `category_id` is the label plus one. A
        rotated box adds `rbox` (cx, cy, w, h, radians) and its four corners as `segmentation` (COCO polygon); a mask
        adds `segmentation` (COCO RLE of the original's size). A label map yields `"pixels": {class: number}` instead,
        and segments yield `"segments": [{"id", "category_id", "label", "area", "bbox"}]`.
    """
    if isinstance(found, Segments):
        segments = _segments(found, width, height, factor, classes)
        return _head(name, file_size, width, height) | {"segments": segments}
    if isinstance(found, LabelMap):
        whole = at_size(found.labels, width, height, factor)
        return labelled_record(name, file_size, width, height, np.bincount(whole.ravel(), minlength=256), classes)
    return _head(name, file_size, width, height) | {"detections": _entries(found, width, height, factor, classes)}


def labelled_record(
    name: str, file_size: int, width: int, height: int, counts: np.ndarray, classes: Sequence[str]
) -> dict[str, Any]:
    """The JSON line of an image with a label map, from the number of pixels (256,) of each label; see `as_record`."""
    pixels = {class_name: int(count) for class_name, count in zip(classes, counts) if count}
    return _head(name, file_size, width, height) | {"pixels": pixels}


def _head(name: str, file_size: int, width: int, height: int) -> dict[str, Any]:
    return {"file_name": name, "file_size": file_size, "width": width, "height": height}


def exact_score(score: np.float32) -> float:
    """The shortest number that is the same in float32: rounded scores would make ties."""
    return float(str(np.float32(score)))


def coco_annotations(record: dict[str, Any], image_id: int, first_id: int) -> list[dict[str, Any]]:
    """A record's detections as entries of a COCO results list, each with an id of its own."""
    keys = ("category_id", "bbox", "score", "rbox", "segmentation")
    return [
        {"id": first_id + index, "image_id": image_id} | {key: entry[key] for key in keys if key in entry}
        for index, entry in enumerate(record.get("detections", ()))
    ]


def _entries(found: Detections, width: int, height: int, factor: int, classes: Sequence[str]) -> list[dict[str, Any]]:
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


def _segments(found: Segments, width: int, height: int, factor: int, classes: Sequence[str]) -> list[dict[str, Any]]:
    ids = at_size(found.ids, width, height, factor)
    entries = []
    for number, where in enumerate(find_objects(ids, len(found.labels))):
        rows, columns = where
        label = int(found.labels[number])
        entry = {"id": number + 1, "category_id": label + 1, "label": classes[label]}
        entry["area"] = int((ids[where] == number + 1).sum())
        entry["bbox"] = [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]
        entries.append(entry)
    return entries


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
