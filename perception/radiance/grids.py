"""Voxel grids of a radiance field: dense features, and the mask of space that is not known to be free (DirectVoxGO)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.ops.sample_rays import round_half_away
from perception.radiance.interpolation import VoxelCorners, grid_corners, trilinear


def grid_resolution(xyz_min: Tensor, xyz_max: Tensor, num_voxels: int) -> tuple[Tensor, tuple[int, int, int]]:
    """Side of a cubic voxel, and voxels per axis, so that a box holds about ``num_voxels``.

    Returns:
        ``voxel_size`` (0-dimensional, world units) and ``world_size`` (X, Y, Z), rounded down as DirectVoxGO does.

    Raises:
        ValueError: the box has no volume, or an axis would have no voxel.

    Example:
        >>> grid_resolution(torch.zeros(3), torch.tensor([4.0, 2.0, 1.0]), num_voxels=64)
        (tensor(0.5000), (8, 4, 2))
    """
    extent = xyz_max - xyz_min
    if not bool((extent > 0).all() and extent.isfinite().all()):
        raise ValueError(f"a grid needs a box with a volume, got {xyz_min.tolist()} to {xyz_max.tolist()}")
    voxel_size = (extent.prod() / num_voxels).pow(1 / 3)
    world_size = tuple((extent / voxel_size).long().tolist())
    if min(world_size) < 1:
        raise ValueError(f"{num_voxels} voxels are too few for a box of {extent.tolist()}")
    return voxel_size, world_size


class DenseGrid(nn.Module):
    """A grid of C numbers per voxel, read by trilinear interpolation; 0 outside its box.

    Args:
        channels: C.
        world_size: (X, Y, Z) voxels per axis.
        xyz_min, xyz_max: corners of the box in world units.
        align_corners: where voxel centres lie, see :func:`~perception.radiance.interpolation.grid_corners`. DirectVoxGO
            and 4K-NeRF trained with ``True``, the published VQRF checkpoints with ``False``.

    The parameter ``grid`` is (1, C, X, Y, Z), initially 0, stored with the channels last in memory.
    """

    def __init__(
        self,
        channels: int,
        world_size: Sequence[int],
        xyz_min: Sequence[float] | Tensor,
        xyz_max: Sequence[float] | Tensor,
        *,
        align_corners: bool = True,
    ):
        super().__init__()
        self.channels = channels
        self.align_corners = align_corners
        self.register_buffer("xyz_min", torch.as_tensor(xyz_min, dtype=torch.float32).clone())
        self.register_buffer("xyz_max", torch.as_tensor(xyz_max, dtype=torch.float32).clone())
        self.grid = nn.Parameter(_channels_last(torch.zeros(1, channels, *world_size)))

    @property
    def world_size(self) -> tuple[int, int, int]:
        """(X, Y, Z) voxels per axis."""
        return tuple(self.grid.shape[2:])

    def corners(self, xyz: Tensor) -> VoxelCorners:
        """The voxels around points (M, 3), with which several grids of one shape can be read."""
        return grid_corners(xyz, self.xyz_min, self.xyz_max, self.world_size, align_corners=self.align_corners)

    def table(self) -> Tensor:
        """The numbers as (X * Y * Z, C), voxels in (x, y, z) order: a view to read and write, without a gradient."""
        return self.grid.detach().permute(0, 2, 3, 4, 1).view(-1, self.channels)

    def forward(self, xyz: Tensor) -> Tensor:
        """Values at points (..., 3): (..., C), or (...) when C is 1.

        The gradient reaches the grid. It reaches the points only if they require it, by ``grid_sample``, which is
        slower.
        """
        points = xyz.reshape(-1, 3)
        values = self._differentiable_in_points(points) if points.requires_grad else self.at(self.corners(points))
        return values.reshape(*xyz.shape[:-1], self.channels).squeeze(-1)

    def at(self, corners: VoxelCorners) -> Tensor:
        """Values (M, C) at points whose corners are known."""
        return trilinear(self.grid, corners)

    def _differentiable_in_points(self, points: Tensor) -> Tensor:
        unit = ((points - self.xyz_min) / (self.xyz_max - self.xyz_min)).flip(-1) * 2 - 1  # (z, y, x) in [-1, 1]
        read = F.grid_sample(self.grid, unit[None, None, None], align_corners=self.align_corners)  # (1, C, 1, 1, M)
        return read[0, :, 0, 0].T

    @torch.no_grad()
    def scale_volume_grid(self, world_size: Sequence[int]) -> None:
        """Resample to another number of voxels, with the outer voxel centres staying where they are.

        ``grid`` becomes a new parameter: autograd does not let one change its shape while an earlier graph is alive.
        """
        scaled = F.interpolate(self.grid, size=tuple(world_size), mode="trilinear", align_corners=True)
        self.grid = nn.Parameter(_channels_last(scaled))


def _channels_last(grid: Tensor) -> Tensor:
    return grid.contiguous(memory_format=torch.channels_last_3d)


class MaskGrid(nn.Module):
    """Which cells of a box are not known to be free space.

    Args:
        mask: (X, Y, Z) bool. Its outer cells are centred on the faces of the box.
        xyz_min, xyz_max: corners of the box in world units.
    """

    def __init__(self, mask: Tensor, xyz_min: Sequence[float] | Tensor, xyz_max: Sequence[float] | Tensor):
        super().__init__()
        xyz_min = torch.as_tensor(xyz_min, dtype=torch.float32, device=mask.device)
        xyz_max = torch.as_tensor(xyz_max, dtype=torch.float32, device=mask.device)
        scale = (torch.tensor(mask.shape, device=mask.device) - 1) / (xyz_max - xyz_min)
        self.register_buffer("mask", mask.bool().clone())
        self.register_buffer("xyz2ijk_scale", scale)
        self.register_buffer("xyz2ijk_shift", -xyz_min * scale)
        self._dilated: dict[tuple[int, int, int], tuple[tuple[int, int], Tensor]] = {}

    def forward(self, xyz: Tensor) -> Tensor:
        """Whether points (..., 3) lie in a cell that may hold something: bool (...), ``False`` outside the box."""
        cell = round_half_away(xyz * self.xyz2ijk_scale + self.xyz2ijk_shift)
        size = cell.new_tensor(self.mask.shape)
        inside = ((cell >= 0) & (cell < size)).all(-1)
        return self._look_up(self.mask, cell, size) & inside

    def may_touch(self, xyz: Tensor, radius: float) -> Tensor:
        """Whether a marked cell may lie within ``radius`` (world units) of points: never wrong where it says ``False``.

        A point outside the box is treated as the nearest one inside, so the answer holds for the part of the ball that
        is inside the box.
        """
        cell = round_half_away(xyz * self.xyz2ijk_scale + self.xyz2ijk_shift)
        return self._look_up(self._dilate(radius), cell, cell.new_tensor(self.mask.shape))

    @staticmethod
    def _look_up(mask: Tensor, cell: Tensor, size: Tensor) -> Tensor:
        i, j, k = torch.nan_to_num(cell).clamp(min=0).minimum(size - 1).long().unbind(-1)
        return mask.reshape(-1)[(i * mask.shape[1] + j) * mask.shape[2] + k]

    def _dilate(self, radius: float) -> Tensor:
        # Two points at most r cells apart round to cells at most floor(r) + 1 apart.
        reach = tuple(int(radius * scale) + 1 for scale in self.xyz2ijk_scale.tolist())
        # The mask may have been changed in place or replaced since the last call.
        state = (self.mask.data_ptr(), self.mask._version)
        known = self._dilated.get(reach)
        if known is None or known[0] != state:
            known = (state, dilate(self.mask, reach))
            self._dilated[reach] = known
        return known[1]


def dilate(mask: Tensor, reach: Sequence[int]) -> Tensor:
    """Mark every cell (X, Y, Z) within ``reach`` cells per axis of a marked one."""
    grown = mask[None, None].float()
    for axis, steps in enumerate(reach):
        kernel, padding = [1, 1, 1], [0, 0, 0]
        steps = min(steps, mask.shape[axis])
        for step in _halving_steps(steps):
            kernel[axis], padding[axis] = 2 * step + 1, step
            grown = F.max_pool3d(grown, kernel, stride=1, padding=padding)
    return grown[0, 0] > 0


def _halving_steps(reach: int) -> list[int]:
    """Small window radii that sum to ``reach``: pooling in several small windows equals one large one."""
    window = 4
    return [window] * (reach // window) + ([reach % window] if reach % window else [])
