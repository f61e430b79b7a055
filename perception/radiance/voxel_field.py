"""What radiance fields in voxel grids share: two grids in a box, and a mask of the cells not known to be free."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.radiance.grids import DenseGrid, MaskGrid


class VoxelField(nn.Module, ABC):
    """A density grid and a feature grid of one resolution, and a mask of any resolution, over one box.

    A subclass registers the buffers ``xyz_min`` and ``xyz_max`` (3,), makes the modules ``density``, ``k0`` and
    ``mask_cache``, and says how opaque its density is.
    """

    xyz_min: Tensor
    xyz_max: Tensor
    density: DenseGrid
    k0: DenseGrid
    mask_cache: MaskGrid
    fast_color_thres: float
    world_size: tuple[int, int, int]

    @abstractmethod
    def alpha_at(self, points: Tensor) -> Tensor:
        """Opacity (X, Y, Z) of a step of one voxel at lattice points (X, Y, Z, 3)."""

    def grid_points(self, world_size: Sequence[int] | None = None) -> Tensor:
        """Points (X, Y, Z, 3) of a lattice whose outer points lie on the box's faces; by default as many as voxels."""
        axes = [
            torch.linspace(low, high, count, device=self.xyz_min.device)
            for low, high, count in zip(self.xyz_min.tolist(), self.xyz_max.tolist(), world_size or self.world_size)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)

    @torch.no_grad()
    def update_occupancy_cache(self) -> None:
        """Mark as free, for good, the cells around which no opacity exceeds ``fast_color_thres``."""
        alpha = self.alpha_at(self.grid_points(self.mask_cache.mask.shape))
        self.mask_cache.mask &= self._dilated_maximum(alpha) > self.fast_color_thres

    def _counting(self, share: Tensor) -> Tensor:
        """Numbers (K,) of the samples whose opacity or weight (M,) counts: all where ``fast_color_thres`` is 0."""
        if self.fast_color_thres <= 0:
            return torch.arange(len(share), device=share.device)
        return (share > self.fast_color_thres).nonzero()[:, 0]

    @staticmethod
    def _dilated_maximum(alpha: Tensor) -> Tensor:
        return F.max_pool3d(alpha[None, None], 3, stride=1, padding=1)[0, 0]

    @torch.no_grad()
    def set_mask(self, mask: Tensor) -> None:
        """Replace the mask by another, (x, y, z) bool of any resolution over the same box."""
        self.mask_cache = MaskGrid(mask, self.xyz_min, self.xyz_max)

    @torch.no_grad()
    def _scale_grids(self, world_size: Sequence[int]) -> None:
        """Resample both grids; they are new parameters afterwards."""
        self.density.scale_volume_grid(world_size)
        self.k0.scale_volume_grid(world_size)
