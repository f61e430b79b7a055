"""Distances between point sets, a block at a time."""

from collections.abc import Iterator

from torch import Tensor

# Distances held at once: bounds the memory of a block to some hundred megabytes.
_DISTANCES_AT_ONCE = 1 << 24


def squared_distances(queries: Tensor, points: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Squared distances (B, m, N) of blocks of queries (B, M, D) to all points (B, N, D), with the block's place in M.

    Computed from differences: the expanded form loses the digits by which near neighbours differ.
    """
    batch, total = queries.shape[:2]
    size = max(1, _DISTANCES_AT_ONCE // max(1, batch * points.shape[1]))
    for start in range(0, total, size):
        block = slice(start, min(start + size, total))
        shifts = (queries[:, block, None, axis] - points[:, None, :, axis] for axis in range(points.shape[2]))
        yield block, sum(shift * shift for shift in shifts)
