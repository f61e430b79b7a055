"""What a model finds where an image has no data is left out."""

from __future__ import annotations

import numpy as np

from perception.inference.images.results import UNLABELLED, Detections, Found, LabelMap, Segments

# An object of which more than this lies where there is no data is not one.
_MOST = 0.5
# Points along each side of a box at which it is looked for data.
_POINTS = 12


def without_nodata(found: Found, valid: np.ndarray | None) -> Found:
    """Results as far as they lie on data: unlabelled pixels elsewhere, and no objects.

    Args:
        found: in pixels of the image.
        valid: which of these are data, bool (height, width); None when all are.
    """
    if valid is None or valid.all():
        return found
    if isinstance(found, LabelMap):
        return LabelMap(np.where(valid, found.labels, np.uint8(UNLABELLED)))
    if isinstance(found, Segments):
        return _segments(found, valid)
    kept = np.flatnonzero(_shares(found, valid) >= 1 - _MOST)
    masks = None if found.masks is None else [found.masks[index] for index in kept]
    return Detections(found.boxes[kept], found.scores[kept], found.labels[kept], masks)


def _segments(found: Segments, valid: np.ndarray) -> Segments:
    """Segments that are left, numbered anew."""
    ids = np.where(valid, found.ids, 0)
    left = np.unique(ids)
    left = left[left > 0]
    numbers = np.zeros(len(found.labels) + 1, np.int32)
    numbers[left] = np.arange(1, len(left) + 1)
    return Segments(numbers[ids], found.labels[left - 1])


def _shares(found: Detections, valid: np.ndarray) -> np.ndarray:
    """Which share (N,) of each object lies on data."""
    if found.masks is not None:
        shares = np.ones(len(found.masks))
        for index, mask in enumerate(found.masks):
            height, width = mask.shape
            part = valid[mask.top : mask.top + height, mask.left : mask.left + width]
            shares[index] = part[mask.inside].mean() if mask.inside.any() else 1.0
        return shares
    corners = found.corners()  # (N, 4, 2), around
    steps = (np.arange(_POINTS) + 0.5) / _POINTS
    across, along = np.meshgrid(steps, steps, indexing="ij")
    origin, right, down = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 3] - corners[:, 0]
    points = (
        origin[:, None] + along.reshape(1, -1, 1) * right[:, None] + across.reshape(1, -1, 1) * down[:, None]
    )  # (N, points, 2)
    height, width = valid.shape
    x = np.floor(points[..., 0]).astype(np.int64).clip(0, width - 1)
    y = np.floor(points[..., 1]).astype(np.int64).clip(0, height - 1)
    return valid[y, x].mean(1)
