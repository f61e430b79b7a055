"""Sorting points into voxels (VoxelNet, arXiv:1711.06396)."""

import torch
from torch import Tensor

__all__ = ["hard_voxelize", "voxel_coordinates"]


def voxel_coordinates(points: Tensor, voxel_size: Tensor, bounds: Tensor) -> Tensor:
    r"""The voxel of each point.

    Args:
        points: x, y, z and any features, of shape :math:`(N, \geq 3)`.
        voxel_size: (x, y, z) edge lengths.
        bounds: (x, y, z) minimum, then maximum.

    Returns:
        Coordinates (z, y, x), int64 of shape :math:`(N, 3)`; -1 throughout for a point out of bounds.

    Example:
        >>> points = torch.tensor([[0.3, 0.1, 0.0], [9.0, 0.0, 0.0]])
        >>> voxel_coordinates(points, torch.tensor([0.25, 0.25, 1.0]), torch.tensor([0.0, 0.0, -1.0, 1.0, 1.0, 1.0]))
        tensor([[ 1,  0,  1],
                [-1, -1, -1]])
    """
    low, size = bounds[:3].to(points), voxel_size.to(points)
    cell = ((points[:, :3] - low) / size).floor()
    outside = ((cell < 0) | (cell >= _grid(voxel_size, bounds).to(cell))).any(1, keepdim=True)
    return torch.where(outside, -1, cell).long().flip(1)


def hard_voxelize(
    points: Tensor, voxel_size: Tensor, bounds: Tensor, max_points: int, max_voxels: int
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Voxels in the order in which points first fall into them, with their first points.

    Args:
        points: x, y, z and any features, of shape :math:`(N, D)`.
        voxel_size: (x, y, z) edge lengths.
        bounds: (x, y, z) minimum, then maximum.
        max_points: points kept per voxel.
        max_voxels: voxels kept.

    Returns:
        Points of each voxel, zero-padded, of shape :math:`(V, \text{max\_points}, D)`; coordinates (z, y, x), int64 of
        shape :math:`(V, 3)`; and the number of points kept in each, int64 of shape :math:`(V,)`.
    """
    cells = voxel_coordinates(points, voxel_size, bounds)
    member = (cells[:, 0] >= 0).nonzero()[:, 0]
    cells = cells[member]
    nx, ny, _ = _grid(voxel_size, bounds).tolist()
    key = (cells[:, 0] * ny + cells[:, 1]) * nx + cells[:, 2]
    kinds, voxel = key.unique(return_inverse=True)
    number = torch.arange(len(key), device=key.device)
    first = torch.full_like(kinds, len(key)).scatter_reduce(0, voxel, number, "amin")
    appearance = first.argsort()
    voxel = appearance.argsort()[voxel]

    by_voxel = voxel.argsort(stable=True)
    sizes = voxel.bincount(minlength=len(kinds))
    place = number - (sizes.cumsum(0) - sizes)[voxel[by_voxel]]
    kept = (place < max_points) & (voxel[by_voxel] < max_voxels)
    by_voxel, place = by_voxel[kept], place[kept]
    count = min(len(kinds), max_voxels)
    voxels = points.new_zeros(count, max_points, points.shape[1])
    voxels[voxel[by_voxel], place] = points[member[by_voxel]]
    return voxels, cells[first[appearance[:count]]], sizes[:count].clamp(max=max_points)


def _grid(voxel_size: Tensor, bounds: Tensor) -> Tensor:
    return ((bounds[3:] - bounds[:3]) / voxel_size).round().long()
