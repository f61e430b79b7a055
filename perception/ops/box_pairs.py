"""Sparse pair-wise comparison of boxes: which pairs can overlap at all, and greedy suppression from a list of pairs."""

from collections.abc import Callable

import torch
from torch import Tensor

# Comparisons made at once: bounds the memory of the dense pre-test to a few tens of megabytes.
_BLOCK = 1 << 22
# Boxes whose order is settled at once.
_RANKS_AT_ONCE = 256


def overlapping_pairs(extents1: Tensor, extents2: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (P,), (P,) of the pairs whose xyxy extents (N, 4) and (M, 4) touch, in row-major order."""
    rows_at_once = max(1, _BLOCK // max(1, len(extents2)))
    first, second = [], []
    for start in range(0, len(extents1), rows_at_once):
        block = extents1[start : start + rows_at_once, None]
        touch = (block[..., :2] <= extents2[:, 2:]).all(-1) & (extents2[:, :2] <= block[..., 2:]).all(-1)
        rows, columns = touch.nonzero(as_tuple=True)
        first.append(rows + start)
        second.append(columns)
    if not first:
        return extents1.new_zeros(0, dtype=torch.long), extents1.new_zeros(0, dtype=torch.long)
    return torch.cat(first), torch.cat(second)


def extents(corners: Tensor) -> Tensor:
    """Axis-aligned bounds (N, 4) as xyxy of polygons (N, V, 2)."""
    return torch.cat([corners.amin(1), corners.amax(1)], 1)


def greedy_nms(bounds: Tensor, classes: Tensor | None, exceeds: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Ranks (K,) of the boxes that stay when, in order of rank, each staying box removes what overlaps it too much.

    Args:
        bounds: xyxy extents (N, 4) of the boxes in order of rank.
        classes: labels (N,) of the boxes; those of different labels do not remove one another.
        exceeds: says of pairs of ranks (P,) and (P,) which overlap too much, as a mask (P,).
    """

    def overlapping(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = overlapping_pairs(bounds[first], bounds[second])
        if classes is not None:
            same = classes[first[rows]] == classes[second[columns]]
            rows, columns = rows[same], columns[same]
        strong = exceeds(first[rows], second[columns])
        return rows[strong], columns[strong]

    # A block first settles its own order, then removes from the rest: in crowded scenes, where the quadratic number of
    # overlaps hurts, most boxes are gone before they are compared with each other.
    kept, remaining = [], torch.arange(len(bounds), device=bounds.device)
    while len(remaining):
        block, rest = remaining[:_RANKS_AT_ONCE], remaining[_RANKS_AT_ONCE:]
        first, second = overlapping(block, block)
        later = first < second
        block = block[_settle(len(block), first[later], second[later])]
        stays = torch.ones_like(rest, dtype=torch.bool)
        stays[overlapping(block, rest)[1]] = False
        kept.append(block)
        remaining = rest[stays]
    return torch.cat(kept) if kept else remaining


def _settle(count: int, first: Tensor, second: Tensor) -> Tensor:
    """Boxes (count,) that stay when, in order, each staying box ``first[k]`` removes ``second[k]`` > ``first[k]``.

    Iterates "stays unless a staying box removes it" from "all stay". Box i is right after as many rounds as the longest
    chain of removals that ends in it, so this ends at the greedy solution, in a handful of rounds for real detections.
    """
    keep = torch.ones(count, dtype=torch.bool, device=first.device)
    while True:
        removed = torch.zeros_like(keep)
        removed[second[keep[first]]] = True
        if torch.equal(removed, ~keep):
            return keep
        keep = ~removed
