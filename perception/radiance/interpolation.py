"""Trilinear reading of dense voxel grids at scattered points, and its transpose.

A grid is a tensor (1, C, X, Y, Z). Stored channels last (``torch.channels_last_3d``), the C numbers of a voxel lie
together, and reading M points is a weighted sum over M * 8 table rows: ``embedding_bag``, which is several times faster
on a CPU than ``grid_sample`` and gives the same numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Corners(NamedTuple):
    """The eight voxels around each of M points, and their trilinear weights (0 for a corner outside the grid)."""

    index: Tensor  # (M, 8) int64, row in the (X * Y * Z, C) table
    weight: Tensor  # (M, 8) float

    def __getitem__(self, keep: Tensor) -> Corners:  # type: ignore[override]
        """The corners of the points that the mask or index ``keep`` selects."""
        return Corners(self.index[keep], self.weight[keep])


def grid_corners(
    xyz: Tensor, xyz_min: Tensor, xyz_max: Tensor, shape: tuple[int, int, int], *, align_corners: bool
) -> Corners:
    """Find the voxels that surround points.

    Args:
        xyz: (M, 3) points in world units.
        xyz_min, xyz_max: (3,) corners of the grid's box.
        shape: (X, Y, Z) voxels per axis.
        align_corners: ``True`` puts the first and last voxel centres on the faces of the box, ``False`` half a voxel
            inside, as in :func:`torch.nn.functional.grid_sample`.
    """
    size = xyz.new_tensor(shape)
    unit = (xyz - xyz_min) / (xyz_max - xyz_min)
    position = unit * (size - 1) if align_corners else unit * size - 0.5
    # Points far away (or not numbers) must not overflow the integers: all of their corners are outside anyway.
    position = torch.nan_to_num(position, nan=-2.0).clamp(min=-2.0).minimum(size + 1)
    lower = position.floor()
    upper_weight = position - lower
    lower = lower.long()
    axis_index, axis_weight = [], []
    for axis, count in enumerate(shape):
        pair = torch.stack([lower[:, axis], lower[:, axis] + 1], -1)  # (M, 2)
        share = torch.stack([1 - upper_weight[:, axis], upper_weight[:, axis]], -1)
        axis_weight.append(share * ((pair >= 0) & (pair < count)))
        axis_index.append(pair.clamp(0, count - 1))
    (x, y, z), (wx, wy, wz) = axis_index, axis_weight
    _, num_y, num_z = shape
    row = (x[:, :, None] * num_y + y[:, None, :]) * num_z  # (M, 2, 2)
    index = row[:, :, :, None] + z[:, None, None, :]  # (M, 2, 2, 2)
    weight = (wx[:, :, None] * wy[:, None, :])[:, :, :, None] * wz[:, None, None, :]
    return Corners(index.reshape(-1, 8), weight.reshape(-1, 8))


def as_table(grid: Tensor) -> Tensor:
    """A grid (1, C, X, Y, Z) as a table (X * Y * Z, C); a view where the channels lie last in memory."""
    return grid.permute(0, 2, 3, 4, 1).reshape(-1, grid.shape[1])


def trilinear(grid: Tensor, corners: Corners) -> Tensor:
    """Read a grid at points: values (M, C), differentiable with respect to the grid (not to the points).

    Args:
        grid: (1, C, X, Y, Z).
        corners: of the M points, from :func:`grid_corners` with this grid's shape.
    """
    return _Trilinear.apply(grid, corners.index, corners.weight)


def splat(values: Tensor, corners: Corners, num_voxels: int) -> Tensor:
    """The transpose of reading: distribute values (M, C) at points over the voxels around them.

    Returns:
        (num_voxels, C), the sum over points and corners of trilinear weight times value.
    """
    table = values.new_zeros(num_voxels, values.shape[1])
    _splat_into(table, values, corners.index, corners.weight)
    return table


class _Trilinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grid: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(index, weight)
        ctx.shape = grid.shape
        if not len(index):
            return grid.new_zeros(0, grid.shape[1])
        return F.embedding_bag(index, as_table(grid), mode="sum", per_sample_weights=weight.to(grid.dtype))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_values: Tensor):
        index, weight = ctx.saved_tensors
        _, channels, num_x, num_y, num_z = ctx.shape
        grad = grad_values.new_zeros(1, num_x, num_y, num_z, channels)
        _splat_into(grad.view(-1, channels), grad_values, index, weight)
        return grad.permute(0, 4, 1, 2, 3), None, None


def _splat_into(table: Tensor, values: Tensor, index: Tensor, weight: Tensor) -> None:
    weight = weight.to(values.dtype)
    # Corner by corner, so that the largest temporary is (M, C) and not (M * 8, C).
    for corner in range(8):
        table.index_add_(0, index[:, corner], values * weight[:, corner, None])
