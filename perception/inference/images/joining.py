"""Parts of an object that several tiles show become one mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import shapely

from perception.inference.images.results import Detections, MaskCrop
from perception.inference.images.tiles import Window

# Objects whose box has more pixels stay in parts: what is kept of an image must not grow with its area.
_LARGEST = 2**26


def joinable(
    found: Detections, windows: Sequence[Window], cut: np.ndarray, candidates: np.ndarray, agreement: float
) -> list[list[int]]:
    """Groups of detections that are parts of one object each.

    Two parts belong together when they have the same label, each ends at an edge of its window that lies within the
    other window, and in what both windows show their masks are the same but for ``agreement``. A group has at most one
    detection of each window; those that agree best are joined first.

    Args:
        found: detections with masks, in pixels of the image.
        windows: in which each was found, (N,).
        cut: which edges of its window, left, top, right and bottom, each ends at, (N, 4) bool.
        candidates: indices of those that may be joined.
        agreement: intersection over union, within the pixels that both windows have, that two parts have to exceed.

    Returns:
        Groups of two and more indices, in rising order.
    """
    bounds = np.array([mask.bounds() for mask in found.masks or ()], np.float64).reshape(-1, 4)
    pairs = []
    for first, second in _touching(bounds, candidates[cut[candidates].any(1)]):
        if found.labels[first] != found.labels[second]:
            continue
        if not (cut[first] & _goes_on(windows[first], windows[second])).any():
            continue
        if not (cut[second] & _goes_on(windows[second], windows[first])).any():
            continue
        same = _agreement(found.masks[first], found.masks[second], windows[first], windows[second])
        if same > agreement:
            pairs.append((-same, first, second))
    groups = {index: [index] for pair in pairs for index in pair[1:]}
    for _, first, second in sorted(pairs):
        one, other = groups[first], groups[second]
        together = one + other
        if one is other or len({windows[index] for index in together}) < len(together):
            continue
        low, high = bounds[together, :2].min(0), bounds[together, 2:].max(0)
        if (high - low).prod() > _LARGEST:
            continue
        groups.update(dict.fromkeys(together, together))
    found_groups = {id(group): sorted(group) for group in groups.values() if len(group) > 1}
    return sorted(found_groups.values())


def union(masks: Sequence[MaskCrop]) -> MaskCrop:
    """What is inside any of some masks, at least one of them not empty."""
    bounds = np.array([mask.bounds() for mask in masks])
    (left, top), (right, bottom) = bounds[:, :2].min(0).tolist(), bounds[:, 2:].max(0).tolist()
    inside = np.zeros((bottom - top, right - left), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, bounds.tolist()):
        inside[y1 - top : y2 - top, x1 - left : x2 - left] |= mask.inside
    return MaskCrop(left, top, inside)


def _touching(bounds: np.ndarray, chosen: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of the chosen boxes that touch."""
    tree = shapely.STRtree(shapely.box(*bounds[chosen].T))
    for first, second in tree.query(tree.geometries).T.tolist():
        if first < second:
            yield int(chosen[first]), int(chosen[second])


def _goes_on(window: Window, other: Window) -> np.ndarray:
    """Which edges of a window, left, top, right and bottom, lie within another one."""
    return np.array(
        [
            other.left < window.left < other.right,
            other.top < window.top < other.bottom,
            other.left < window.right < other.right,
            other.top < window.bottom < other.bottom,
        ]
    )


def _agreement(first: MaskCrop, second: MaskCrop, one: Window, other: Window) -> float:
    """Intersection over union of two masks within the pixels that both windows have."""
    left, top = max(one.left, other.left), max(one.top, other.top)
    right, bottom = min(one.right, other.right), min(one.bottom, other.bottom)
    if left >= right or top >= bottom:
        return 0.0
    parts = [_part(mask, left, top, right, bottom) for mask in (first, second)]
    if any(part is None for part in parts):
        return 0.0
    both = union(parts)
    shared = sum(int(part.inside.sum()) for part in parts) - int(both.inside.sum())
    return shared / int(both.inside.sum())


def _part(mask: MaskCrop, left: int, top: int, right: int, bottom: int) -> MaskCrop | None:
    """What of a mask lies within a rectangle; None if nothing does."""
    x1, y1 = max(mask.left, left), max(mask.top, top)
    inside = mask.inside[y1 - mask.top : max(0, bottom - mask.top), x1 - mask.left : max(0, right - mask.left)]
    return MaskCrop(x1, y1, inside) if inside.any() else None
