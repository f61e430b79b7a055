"""Total variation of voxel grids, added to a gradient in place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from perception.ops.total_variation import total_variation_add_grad_


@torch.no_grad()
def total_variation_add_grad(grid: Tensor, weight: float | Sequence[float], *, dense: bool = True) -> None:
    """Add the gradient of a Huber-like total variation to ``grid.grad``.

    Every voxel v receives ``weight / 6 * clamp(v - u, -1, 1)`` for each neighbour u along the axes (DirectVoxGO).

    Args:
        grid: parameter (1, C, X, Y, Z) with a gradient.
        weight: for differences along x, y and z, or one number for all.
        dense: add to all entries; otherwise only to those whose gradient is not 0.

    Raises:
        ValueError: ``grid`` has no gradient yet.
    """
    if grid.grad is None:
        raise ValueError("total variation is added to an existing gradient: call backward first")
    weights = (weight,) * 3 if isinstance(weight, (int, float)) else tuple(weight)
    total_variation_add_grad_(grid, grid.grad, weights, dense)
