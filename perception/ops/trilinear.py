"""Trilinear reading of voxel grids at scattered points, and its transpose."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from perception.ops.backend import native
from perception.ops.registration import FULL, native_kernel

__all__ = ["VoxelCorners", "trilinear_gather", "trilinear_scatter"]


class VoxelCorners:
    r"""The eight voxels around each of M points; corners outside the grid have no weight.

    Args:
        position: of shape :math:`(M, 3)`, in voxels: (i, j, k) is the centre of a voxel. Places that are not numbers
            lie outside.
        shape: voxels (X, Y, Z) per axis. Row :math:`(i Y + j) Z + k` of a table of the grid is voxel (i, j, k).
    """

    def __init__(self, position: Tensor, shape: Sequence[int]):
        self.position = position
        self.shape = tuple(shape)

    def __len__(self) -> int:
        return len(self.position)

    def __getitem__(self, keep: Tensor) -> VoxelCorners:
        """The corners of the points that the mask or index ``keep`` selects."""
        chosen = VoxelCorners(self.position[keep], self.shape)
        if "_taps" in self.__dict__:
            chosen.__dict__["_taps"] = tuple(x[keep] for x in self._taps)
        return chosen

    @property
    def index(self) -> Tensor:
        """(M, 8) int64, rows of the table."""
        return self._taps[0]

    @property
    def weight(self) -> Tensor:
        """(M, 8) trilinear weights."""
        return self._taps[1]

    @cached_property
    def _taps(self) -> tuple[Tensor, Tensor]:
        # Points far away must not overflow the integers: all of their corners are outside anyway.
        limit = self.position.new_tensor(self.shape) + 1
        position = torch.nan_to_num(self.position, nan=-2.0).clamp(min=-2.0).minimum(limit)
        lower = position.floor()
        upper_weight = position - lower
        lower = lower.long()
        axis_index, axis_weight = [], []
        for axis, count in enumerate(self.shape):
            pair = torch.stack([lower[:, axis], lower[:, axis] + 1], -1)  # (M, 2)
            share = torch.stack([1 - upper_weight[:, axis], upper_weight[:, axis]], -1)
            axis_weight.append(share * ((pair >= 0) & (pair < count)))
            axis_index.append(pair.clamp(0, count - 1))
        (x, y, z), (wx, wy, wz) = axis_index, axis_weight
        _, num_y, num_z = self.shape
        row = (x[:, :, None] * num_y + y[:, None, :]) * num_z  # (M, 2, 2)
        index = row[:, :, :, None] + z[:, None, None, :]  # (M, 2, 2, 2)
        weight = (wx[:, :, None] * wy[:, None, :])[:, :, :, None] * wz[:, None, None, :]
        return index.reshape(-1, 8), weight.reshape(-1, 8)


def trilinear_gather(table: Tensor, corners: VoxelCorners) -> Tensor:
    r"""Values of a grid at points, differentiable by the grid (not by the points).

    On CUDA the gradient is summed by atomic additions, whose order (so, the last digits) differs between runs.

    Args:
        table: the grid's voxels, of shape :math:`(XYZ, C)`.
        corners: of M points.

    Returns:
        Tensor of shape :math:`(M, C)`.
    """
    if native("trilinear_gather", table, corners.position):
        return torch.ops.perception.trilinear_gather(table, corners.position, corners.shape)
    return _Gather.apply(table, corners.index, corners.weight)


def trilinear_scatter(values: Tensor, corners: VoxelCorners) -> Tensor:
    r"""The transpose of reading: distribute values at points over the voxels around them.

    Args:
        values: of shape :math:`(M, C)`.
        corners: of the M points.

    Returns:
        Sums over points and corners of trilinear weight times value, of shape :math:`(XYZ, C)`.
    """
    if native("trilinear_scatter", values, corners.position):
        return torch.ops.perception.trilinear_scatter(values, corners.position, corners.shape)
    x, y, z = corners.shape
    return _Scatter.apply(values, corners.index, corners.weight, x * y * z)


def _gather(table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    if not len(index):
        return table.new_zeros(0, table.shape[1])
    # Several times faster on a CPU than grid_sample, with the same numbers.
    return F.embedding_bag(index, table, mode="sum", per_sample_weights=weight.to(table.dtype))


def _scatter(values: Tensor, index: Tensor, weight: Tensor, num_voxels: int) -> Tensor:
    table = values.new_zeros(num_voxels, values.shape[1])
    weight = weight.to(values.dtype)
    # Corner by corner, so that the largest temporary is (M, C) and not (M * 8, C).
    for corner in range(8):
        table.index_add_(0, index[:, corner], values * weight[:, corner, None])
    return table


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(index, weight)
        ctx.num_voxels = len(table)
        return _gather(table, index, weight)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _Scatter.apply(grad, *ctx.saved_tensors, ctx.num_voxels), None, None


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, index: Tensor, weight: Tensor, num_voxels: int) -> Tensor:
        ctx.save_for_backward(index, weight)
        return _scatter(values, index, weight, num_voxels)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _Gather.apply(grad.contiguous(), *ctx.saved_tensors), None, None, None


def _remember(ctx, inputs, output):
    _, position, ctx.shape = inputs
    ctx.save_for_backward(position)


def _derivative_of_gather(ctx, grad):
    return torch.ops.perception.trilinear_scatter(grad, ctx.saved_tensors[0], ctx.shape), None, None


def _derivative_of_scatter(ctx, grad):
    return torch.ops.perception.trilinear_gather(grad, ctx.saved_tensors[0], ctx.shape), None, None


@native_kernel(
    "trilinear_gather(Tensor table, Tensor position, int[] shape) -> Tensor",
    types=FULL,
    setup_context=_remember,
    backward=_derivative_of_gather,
)
def _fake_gather(table, position, shape):
    return table.new_empty(position.shape[0], table.shape[1])


@native_kernel(
    "trilinear_scatter(Tensor values, Tensor position, int[] shape) -> Tensor",
    types=FULL,
    setup_context=_remember,
    backward=_derivative_of_scatter,
)
def _fake_scatter(values, position, shape):
    return values.new_empty(shape[0] * shape[1] * shape[2], values.shape[1])
