"""What a model found in one image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from perception.datasets.masks import MaskCrop
from perception.geometry.rotated_boxes import box_corners, upright_bounds

UNLABELLED = 255
"""What a label map holds where there is no class; the labels of classes are below it."""


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
        """In an image `factor` times as large; with masks where that is one k-th, else without."""
        sizes = [factor, factor, factor, factor, 1] if self.rotated else [factor] * 4
        times, masks = round(1 / factor), None
        if self.masks is not None and times * factor == 1:
            masks = [mask.reduced(times) for mask in self.masks]
        return Detections(self.boxes * np.asarray(sizes, self.boxes.dtype), self.scores, self.labels, masks)


@dataclass(frozen=True)
class LabelMap:
    """The class of each pixel of one image: uint8 (height, width), `UNLABELLED` where there is none."""

    labels: np.ndarray

    def rows(self, width: int, height: int, factor: int) -> Iterator[np.ndarray]:
        """Labels of an original of that size, from the top, uint8 (some rows, width)."""
        yield at_size(self.labels, width, height, factor)


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
