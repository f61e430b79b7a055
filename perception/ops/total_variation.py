"""Gradient of the total variation of a voxel grid."""

from __future__ import annotations

import torch
from torch import Tensor

from perception.ops.backend import native
from perception.ops.registration import FULL, native_kernel

__all__ = ["total_variation_add_grad_"]


@torch.no_grad()
def total_variation_add_grad_(
    grid: Tensor, grad: Tensor, weights: tuple[float, float, float], dense: bool = True
) -> None:
    r"""Add the gradient of a Huber-like total variation to a gradient, in place.

    Every voxel v receives ``weight / 6 * clamp(v - u, -1, 1)`` for each neighbour u along an axis (DirectVoxGO,
    arXiv:2111.11215).

    Args:
        grid: of shape :math:`(1, C, X, Y, Z)`.
        grad: added to, of the same shape.
        weights: for differences along x, y and z.
        dense: add to all entries; otherwise only to those whose gradient is not 0.
    """
    if native("total_variation_add_grad_", grid, grad) and _flat(grid) and grid.stride() == grad.stride():
        torch.ops.perception.total_variation_add_grad_(grid, grad, *weights, dense)
        return
    addition = torch.zeros_like(grid)
    for axis, weight in zip((2, 3, 4), weights):
        pull = grid.diff(dim=axis).clamp_(-1, 1).mul_(weight / 6)
        size = grid.shape[axis]
        if size > 1:
            addition.narrow(axis, 1, size - 1).add_(pull)
            addition.narrow(axis, 0, size - 1).sub_(pull)
    if not dense:
        addition.mul_(grad != 0)
    grad.add_(addition)


def _flat(grid: Tensor) -> bool:
    return grid.is_contiguous() or grid.is_contiguous(memory_format=torch.channels_last_3d)


@native_kernel(
    "total_variation_add_grad_(Tensor grid, Tensor(a!) grad, float weight_x, float weight_y, float weight_z, "
    "bool dense) -> ()",
    types=FULL,
)
def _fake(grid, grad, weight_x, weight_y, weight_z, dense):
    return None
