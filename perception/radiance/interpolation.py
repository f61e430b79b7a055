"""Trilinear reading of dense voxel grids at scattered points, and its transpose.

A grid is a tensor (1, C, X, Y, Z). Stored channels last (``torch.channels_last_3d``), the C numbers of a voxel lie
together, and the grid is the table that :mod:`perception.ops.trilinear` reads.
"""

from __future__ import annotations

from torch import Tensor

from perception.ops.trilinear import VoxelCorners, trilinear_gather

__all__ = ["VoxelCorners", "as_table", "grid_corners", "trilinear"]


def grid_corners(
    xyz: Tensor, xyz_min: Tensor, xyz_max: Tensor, shape: tuple[int, int, int], *, align_corners: bool
) -> VoxelCorners:
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
    return VoxelCorners(unit * (size - 1) if align_corners else unit * size - 0.5, shape)


def as_table(grid: Tensor) -> Tensor:
    """A grid (1, C, X, Y, Z) as a table (X * Y * Z, C); a view where the channels lie last in memory."""
    return grid.permute(0, 2, 3, 4, 1).reshape(-1, grid.shape[1])


def trilinear(grid: Tensor, corners: VoxelCorners) -> Tensor:
    """Read a grid at points: values (M, C), differentiable with respect to the grid (not to the points).

    Args:
        grid: (1, C, X, Y, Z).
        corners: of the M points, from :func:`grid_corners` with this grid's shape.
    """
    return trilinear_gather(as_table(grid), corners)
