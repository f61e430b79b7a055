"""From cameras to a coarse field, and from a coarse to a fine one: the steps between the stages of DirectVoxGO.

`Views` are all training rays, view by view: an iterable that can be walked more than once and gives
``(view, rays_o, rays_d, viewdirs)`` chunks, tensors (N, 3); a view's chunks follow each other.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from perception.ops.trilinear import trilinear_scatter
from perception.radiance.dvgo import DirectVoxGO
from perception.radiance.grids import MaskGrid
from perception.radiance.sampling import sample_rays

ViewRays = tuple[int, Tensor, Tensor, Tensor]
Views = Iterable[ViewRays]


def frustum_bounds(views: Views, near: float, far: float) -> tuple[Tensor, Tensor]:
    """The box (3,), (3,) around the ends of all viewing rays, ``near`` and ``far`` world units from their cameras."""
    low = high = None
    for _, rays_o, _, viewdirs in views:
        ends = torch.cat([rays_o + viewdirs * near, rays_o + viewdirs * far])
        low = ends.amin(0) if low is None else torch.minimum(low, ends.amin(0))
        high = ends.amax(0) if high is None else torch.maximum(high, ends.amax(0))
    return low, high


@torch.no_grad()
def occupied_bounds(field: DirectVoxGO, threshold: float, enlarge: float = 1.05) -> tuple[Tensor, Tensor]:
    """The box around the lattice points whose opacity exceeds ``threshold``, its sides ``enlarge`` times as long.

    Raises:
        ValueError: no point does: the field is empty.
    """
    points = field.grid_points()
    occupied = points[field.alpha_at(points) > threshold]
    if not len(occupied):
        raise ValueError(f"no voxel of the coarse field has an opacity above {threshold}: it has learnt empty space")
    low, high = occupied.amin(0), occupied.amax(0)
    margin = (high - low) * (enlarge - 1) / 2
    return low - margin, high + margin


@torch.no_grad()
def count_views(field: DirectVoxGO, views: Views, *, near: float, stepsize: float) -> Tensor:
    """How many views see each voxel, (X, Y, Z) float: those whose trilinear weights there sum to more than 1."""
    num_voxels = field.density.grid[0, 0].numel()
    count = torch.zeros(num_voxels, device=field.xyz_min.device)
    stepdist = float(stepsize * field.voxel_size)
    for _, chunks in itertools.groupby(views, key=lambda rays: rays[0]):
        seen = torch.zeros_like(count)
        for _, rays_o, rays_d, _ in chunks:
            points = sample_rays(rays_o, rays_d, field.xyz_min, field.xyz_max, near=near, stepdist=stepdist).points
            ones = points.new_ones(len(points), 1)
            seen += trilinear_scatter(ones, field.density.corners(points))[:, 0]
        count += seen > 1
    return count.view(field.world_size)


@torch.no_grad()
def clear_near_cameras(field: DirectVoxGO, cameras: Tensor, near: float, *, density: float = -100.0) -> None:
    """Give voxels within ``near`` world units of any camera (N, 3) a density at which nothing is ever learnt."""
    for plane, points in enumerate(field.grid_points()):
        close = torch.cdist(points.reshape(-1, 3), cameras).amin(1) <= near  # (Y * Z,)
        field.density.grid[0, 0, plane][close.view(points.shape[:2])] = density


@torch.no_grad()
def inherited_mask(coarse: DirectVoxGO, points: Tensor, threshold: float) -> Tensor:
    """Which points (..., 3) lie in or next to a voxel of the coarse field whose opacity is at least ``threshold``."""
    around = F.max_pool3d(coarse.density.grid, 3, stride=1, padding=1)
    alpha = coarse.activate(around[0, 0], interval=float(coarse.voxel_size_ratio))
    return MaskGrid(alpha >= threshold, coarse.xyz_min, coarse.xyz_max)(points)


def progressive_resolutions(num_voxels: int, doublings: int) -> list[int]:
    """Numbers of voxels of a progressively scaled grid, from ``num_voxels / 2**doublings`` up to ``num_voxels``."""
    return [int(num_voxels / 2**power) for power in range(doublings, -1, -1)]
