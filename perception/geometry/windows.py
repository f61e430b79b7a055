"""Windows over large images, and which polygons they hold.

Windows are (x1, y1, x2, y2) in whole pixels; polygons have their vertices in pixels of the same image.
"""

from __future__ import annotations

from math import ceil

import numpy as np
import torch

from perception.ops.polygons import area_within_rectangle, polygon_area


def sliding_windows(width: int, height: int, size: int, gap: int) -> np.ndarray:
    """Windows `[W, 4]` of a side that cover an image: x in the outer loop, y in the inner one.

    The last window of a row or a column is shifted back to the border; where the image is smaller than the window, it
    starts at 0 and reaches beyond the image.

    Args:
        gap: overlap of neighbours in pixels.

    Raises:
        ValueError: neighbours would not advance.

    Example:
        >>> sliding_windows(1500, 900, 1024, 200).tolist()
        [[0, 0, 1024, 1024], [476, 0, 1500, 1024]]
    """
    if not 0 <= gap < size:
        raise ValueError(f"a gap must be at least 0 and below the size of the windows, not {gap} with size {size}")
    starts = [(x, y) for x in _starts(width, size, gap) for y in _starts(height, size, gap)]
    return np.array([(x, y, x + size, y + size) for x, y in starts], np.int64)


def with_enough_image(windows: np.ndarray, width: int, height: int, share: float) -> np.ndarray:
    """Those windows of which more than a share is image; if there are none, the best."""
    inside = np.minimum(windows[:, 2:], (width, height)) - windows[:, :2]
    shares = inside.prod(axis=1) / (windows[:, 2:] - windows[:, :2]).prod(axis=1)
    kept = shares > share
    return windows[kept if kept.any() else shares > shares.max() - 0.01]


def shares_inside(corners: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """The share of each polygon's area that lies in each window: `[N, 4, 2]`, `[W, 4]` -> `[N, W]`.

    A polygon without area lies nowhere.
    """
    low, high = corners.min(axis=1), corners.max(axis=1)
    touching = (low[:, None] < windows[None, :, 2:]).all(axis=2) & (high[:, None] > windows[None, :, :2]).all(axis=2)
    first, second = np.nonzero(touching)
    polygons, rectangles = corners[first], windows[second].astype(np.float64)
    centres = (rectangles[:, :2] + rectangles[:, 2:]) / 2
    half_sizes = (rectangles[:, 2:] - rectangles[:, :2]) / 2
    shared = area_within_rectangle(torch.from_numpy(polygons - centres[:, None]), torch.from_numpy(half_sizes))
    areas = polygon_area(torch.from_numpy(corners)).abs().numpy()[first]
    shares = np.zeros(touching.shape)
    shares[first, second] = np.divide(shared.numpy(), areas, out=np.zeros_like(areas), where=areas > 1e-6)
    return shares.clip(0, 1)


def polygons_of(
    corners: np.ndarray, window: np.ndarray, shares: np.ndarray, least: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The polygons of one window, whole, in the window's coordinates.

    Args:
        corners: `[N, 4, 2]`.
        window: `[4]`.
        shares: `[N]` of each polygon in the window.
        least: a polygon belongs to a window that holds at least this share of it.

    Returns:
        Their indices `[K]`, their corners `[K, 4, 2]`, and whether they reach out of the window `[K]`.
    """
    kept = np.flatnonzero(shares >= least)
    inside = corners[kept]
    cut = ((inside < window[:2]) | (inside > window[2:])).any(axis=(1, 2))
    return kept, inside - window[:2], cut


def _starts(length: int, size: int, gap: int) -> list[int]:
    if length <= size:
        return [0]
    step = size - gap
    return [min(step * k, length - size) for k in range(ceil((length - size) / step) + 1)]
