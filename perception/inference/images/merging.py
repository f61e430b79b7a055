"""Detections of overlapping tiles become those of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from perception.datasets.masks import PackedMask
from perception.geometry.suppression import Conflict, suppress
from perception.inference.images.joining import joinable, union
from perception.inference.images.results import Detections, MaskCrop
from perception.inference.images.tiles import Window, cut_sides
from perception.ops.bbox_overlaps import bbox_overlaps
from perception.ops.box_iou_rotated import box_iou_rotated

# A part of an object, cut off by its tile's edge, goes when a detection of another tile holds more than this of it.
_PART_INSIDE = 0.5
# Masks are predicted on a grid of 28 x 28 in their box: they end within a cell or so of the edge that cuts them.
_CELL = 0.05
_MARGIN = 2.0


@dataclass
class TileMerger:
    """Collects the detections of an image's tiles.

    Masks that are parts of one object in several tiles are joined (:func:`perception.inference.images.joining
    .joinable`): the result has the highest of their scores, and the box of its mask.

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
    _windows: list[Window] = field(default_factory=list)

    def add(self, window: Window, found: Detections) -> None:
        """Notes what was found in a window, in its pixels."""
        self._found.append(_moved(found, window))
        self._windows.append(window)

    def merged(self) -> Detections:
        """Detections of the whole image in its pixels, best first."""
        whole = _together(self._found)
        tile = np.repeat(np.arange(len(self._found)), [len(found.scores) for found in self._found])
        sides = np.concatenate([self._cut(*pair) for pair in zip(self._found, self._windows)])
        cut = sides.any(1)
        if whole.masks is not None:
            parts = self._settled(whole, tile, cut, lambda better, worse: cut[worse] & ~cut[better], np.inf)
            whole, tile, cut = self._joined(whole, tile, sides, parts)
        limit = self.iou_threshold
        if limit is None:
            limit = 0.1 if whole.rotated else 0.5
        kept = self._settled(whole, tile, cut, lambda better, worse: cut[worse], limit)
        return _chosen(whole, kept[np.argsort(-whole.scores[kept], kind="stable")])

    def _cut(self, found: Detections, window: Window) -> np.ndarray:
        """Which edges of its window each detection ends at, (N, 4)."""
        if found.masks is None:
            return cut_sides(found.bounds(), window, self.width, self.height, _MARGIN)
        bounds = np.array([mask.bounds() for mask in found.masks], np.float64).reshape(-1, 4)
        margins = np.maximum(_MARGIN, _CELL * (bounds[:, 2:] - bounds[:, :2]))
        return cut_sides(bounds, window, self.width, self.height, margins)

    def _settled(
        self, whole: Detections, tiles: np.ndarray, cut: np.ndarray, is_part: Conflict, limit: float
    ) -> np.ndarray:
        """Those that stay, best first.

        Args:
            whole: all detections.
            tiles: (N,) number of the tile, or of the tiles together, in which each was found.
            cut: (N,) those that count less than the others.
            is_part: whether the worse one of a pair goes when it lies in the better one for the most part.
            limit: overlap above which the worse one goes in any case.
        """

        def conflict(better: np.ndarray, worse: np.ndarray) -> np.ndarray:
            result = np.zeros(len(better), bool)
            pairs = np.flatnonzero(tiles[better] != tiles[worse])
            better, worse = better[pairs], worse[pairs]
            iou, inside = _overlaps(whole, worse, better)
            result[pairs] = (iou > limit) | (is_part(better, worse) & (inside > _PART_INSIDE))
            return result

        return suppress(whole.bounds(), np.lexsort([-whole.scores, cut]), whole.labels, conflict)

    def _joined(
        self, whole: Detections, tile: np.ndarray, sides: np.ndarray, candidates: np.ndarray
    ) -> tuple[Detections, np.ndarray, np.ndarray]:
        """The candidates with their parts joined, numbers of the tiles of each, and whether it goes on beyond these."""
        limit = 0.5 if self.iou_threshold is None else self.iou_threshold
        windows = [self._windows[index] for index in tile]
        groups = joinable(whole, windows, sides, candidates, limit)
        single = sorted(set(candidates.tolist()).difference(*groups))
        joined, sources, cut = [_chosen(whole, single)], tile[single].tolist(), sides[single].any(1).tolist()
        numbers: dict[tuple[int, ...], int] = {}
        for group in groups:
            best = max(group, key=lambda index: whole.scores[index])
            mask = union([whole.masks[index] for index in group])
            box = np.asarray(mask.bounds(), np.float32)[None]
            packed = PackedMask(mask, mask.left, mask.top)
            joined.append(Detections(box, whole.scores[[best]], whole.labels[[best]], [packed]))
            sources.append(numbers.setdefault(tuple(tile[group].tolist()), len(self._found) + len(numbers)))
            own = [windows[index] for index in group]
            cut.append(any(_goes_on(sides[index], windows[index], own) for index in group))
        return _together(joined), np.array(sources, np.int64), np.array(cut, bool)


def _goes_on(cut: np.ndarray, window: Window, windows: Sequence[Window]) -> bool:
    """Whether a part ends at an edge of its window that none of the windows of the joined object lies beyond."""
    beyond = [
        any(other.left < window.left for other in windows),
        any(other.top < window.top for other in windows),
        any(other.right > window.right for other in windows),
        any(other.bottom > window.bottom for other in windows),
    ]
    return bool((cut & ~np.array(beyond)).any())


def _chosen(found: Detections, kept: Sequence[int] | np.ndarray) -> Detections:
    kept = np.asarray(kept, np.int64)
    masks = None if found.masks is None else [found.masks[index] for index in kept]
    return Detections(found.boxes[kept], found.scores[kept], found.labels[kept], masks)


def _moved(found: Detections, window: Window) -> Detections:
    """Detections of a window in the image's pixels; their masks wait for those of the other windows, and so packed."""
    shift = [window.left, window.top, 0, 0, 0] if found.rotated else [window.left, window.top] * 2
    masks = found.masks
    if masks is not None:
        masks = [PackedMask(mask, mask.left + window.left, mask.top + window.top) for mask in masks]
    return Detections(found.boxes + np.asarray(shift, found.boxes.dtype), found.scores, found.labels, masks)


def _together(parts: Sequence[Detections]) -> Detections:
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
    pixels = [mask.inside for mask in (first, second)]
    parts = [inside[top - mask.top :, left - mask.left :] for inside, mask in zip(pixels, (first, second))]
    height, width = (min(sizes) for sizes in zip(*(part.shape for part in parts)))
    shared = int((parts[0][:height, :width] & parts[1][:height, :width]).sum())
    area1, area2 = (int(inside.sum()) for inside in pixels)
    union = area1 + area2 - shared
    return (shared / union if union else 0.0), (shared / area1 if area1 else 0.0)
