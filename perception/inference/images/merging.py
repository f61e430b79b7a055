"""Detections of overlapping tiles become those of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from perception.geometry.suppression import suppress
from perception.inference.images.results import Detections, MaskCrop
from perception.inference.images.tiles import Window, cut_by_window
from perception.ops.bbox_overlaps import bbox_overlaps
from perception.ops.box_iou_rotated import box_iou_rotated

# A part of an object, cut off by its tile's edge, goes when a detection of another tile holds more than this of it.
_PART_INSIDE = 0.5


@dataclass
class TileMerger:
    """Collects the detections of an image's tiles.

    Detections of one label from different tiles are the same object when their overlap (rotated, upright or of masks)
    exceeds `iou_threshold`: the one with the higher score stays. One that ends where its tile does counts less than any
    other, and also goes when it lies for the most part in another one. What a single tile yields is the model's own
    decision and never compared. The cost is linear in the number of detections for scattered objects.

    Attributes:
        width, height: of the image in pixels.
        iou_threshold: in [0, 1]; None for 0.1 with rotated boxes, as in DOTA's evaluation, and 0.5 with others.
    """

    width: int
    height: int
    iou_threshold: float | None = None
    _found: list[Detections] = field(default_factory=list)
    _cut: list[np.ndarray] = field(default_factory=list)

    def add(self, window: Window, found: Detections) -> None:
        """Notes what was found in a window, in its pixels."""
        moved = _moved(found, window)
        self._found.append(moved)
        self._cut.append(cut_by_window(moved.bounds(), window, self.width, self.height))

    def merged(self) -> Detections:
        """Detections of the whole image in its pixels, best first."""
        whole, cut = _joined(self._found), np.concatenate(self._cut)
        tile = np.repeat(np.arange(len(self._found)), [len(found.scores) for found in self._found])
        limit = self.iou_threshold
        if limit is None:
            limit = 0.1 if whole.rotated else 0.5

        def conflict(better: np.ndarray, worse: np.ndarray) -> np.ndarray:
            result = np.zeros(len(better), bool)
            pairs = np.flatnonzero(tile[better] != tile[worse])
            better, worse = better[pairs], worse[pairs]
            iou, inside = _overlaps(whole, worse, better)
            result[pairs] = (iou > limit) | (cut[worse] & (inside > _PART_INSIDE))
            return result

        order = np.lexsort([-whole.scores, cut])
        kept = suppress(whole.bounds(), order, whole.labels, conflict)
        kept = kept[np.argsort(-whole.scores[kept], kind="stable")]
        masks = None if whole.masks is None else [whole.masks[index] for index in kept]
        return Detections(whole.boxes[kept], whole.scores[kept], whole.labels[kept], masks)


def _moved(found: Detections, window: Window) -> Detections:
    """Detections of a window in the image's pixels."""
    shift = [window.left, window.top, 0, 0, 0] if found.rotated else [window.left, window.top] * 2
    masks = found.masks
    if masks is not None:
        masks = [MaskCrop(mask.left + window.left, mask.top + window.top, mask.inside) for mask in masks]
    return Detections(found.boxes + np.asarray(shift, found.boxes.dtype), found.scores, found.labels, masks)


def _joined(parts: Sequence[Detections]) -> Detections:
    # A part without detections need not say whether the model yields masks.
    masked = [part.masks is not None for part in parts if len(part.scores)]
    masks = [mask for part in parts for mask in part.masks or ()] if masked and all(masked) else None
    numbers = (np.concatenate([getattr(part, key) for part in parts]) for key in ("boxes", "scores", "labels"))
    return Detections(*numbers, masks)


def _overlaps(whole: Detections, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intersection over union, and over the first, of pairs of detections."""
    if whole.masks is not None:
        pairs = [_mask_overlap(whole.masks[i], whole.masks[j]) for i, j in zip(first, second)]
        iou, inside = np.asarray(pairs, np.float64).reshape(-1, 2).T
        return iou, inside
    boxes1, boxes2 = torch.from_numpy(whole.boxes[first]), torch.from_numpy(whole.boxes[second])
    overlap = box_iou_rotated if whole.rotated else bbox_overlaps
    iou, inside = (overlap(boxes1, boxes2, mode, aligned=True).numpy() for mode in ("iou", "iof"))
    # Of boxes without area nothing overlaps; for upright ones the quotient is undefined.
    return np.nan_to_num(iou), np.nan_to_num(inside)


def _mask_overlap(first: MaskCrop, second: MaskCrop) -> tuple[float, float]:
    """Intersection over union, and over the first."""
    left, top = max(first.left, second.left), max(first.top, second.top)
    parts = []
    for mask in (first, second):
        rows, columns = slice(top - mask.top, None), slice(left - mask.left, None)
        parts.append(mask.inside[rows, columns])
    height, width = (min(sizes) for sizes in zip(*(part.shape for part in parts)))
    shared = int((parts[0][:height, :width] & parts[1][:height, :width]).sum())
    area1, area2 = int(first.inside.sum()), int(second.inside.sum())
    union = area1 + area2 - shared
    return (shared / union if union else 0.0), (shared / area1 if area1 else 0.0)
