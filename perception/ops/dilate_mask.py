"""Dilation and erosion of voxel masks."""

from __future__ import annotations

import torch
from torch import Tensor

from perception.ops.backend import native
from perception.ops.registration import native_kernel

__all__ = ["dilate_mask", "erode_mask"]


def dilate_mask(mask: Tensor, times: int = 1) -> Tensor:
    r"""Mark all voxels that touch a marked one, at a face, an edge or a corner, ``times`` times over.

    Args:
        mask: bool of shape :math:`(X, Y, Z)`.
        times: how often; 0 gives a copy.

    Returns:
        A new mask. Nothing outside the grid is marked.

    Example:
        >>> mask = torch.zeros(5, 5, 5, dtype=torch.bool)
        >>> mask[2, 2, 2] = True
        >>> [int(dilate_mask(mask, times).sum()) for times in (0, 1, 2)]
        [1, 27, 125]
    """
    if native("dilate_mask", mask):
        return torch.ops.perception.dilate_mask(mask, times)
    # A box of 2 times + 1 voxels a side, axis after axis.
    for axis in range(3):
        wide = mask.clone()
        for shift in range(1, min(times, mask.shape[axis] - 1) + 1):
            size = mask.shape[axis] - shift
            wide.narrow(axis, shift, size).logical_or_(mask.narrow(axis, 0, size))
            wide.narrow(axis, 0, size).logical_or_(mask.narrow(axis, shift, size))
        mask = wide
    return mask


def erode_mask(mask: Tensor, times: int = 1) -> Tensor:
    r"""Unmark all voxels that touch an unmarked one, ``times`` times over; what lies outside the grid does not count.

    Args:
        mask: bool of shape :math:`(X, Y, Z)`.
        times: how often.
    """
    return dilate_mask(mask.logical_not(), times).logical_not_()


@native_kernel("dilate_mask(Tensor mask, int times) -> Tensor", types=frozenset({torch.bool}))
def _fake(mask, times):
    return torch.empty_like(mask)
