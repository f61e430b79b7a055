"""From cameras to a coarse field, from a coarse to a fine one, and when that grows: DirectVoxGO between its steps.

`Views` are all training rays, view by view: an iterable that can be walked more than once and gives
``(view, rays_o, rays_d, viewdirs)`` chunks, tensors (N, 3); a view's chunks follow each other.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from perception.engine.errors import UserError
from perception.ops.trilinear import trilinear_scatter
from perception.radiance.dvgo import DirectVoxGO
from perception.radiance.dvgo_settings import CoarseSettings, FineSettings
from perception.radiance.grids import MaskGrid
from perception.radiance.sampling import sample_around
from perception.radiance.voxel_field import VoxelField

ViewRays = tuple[int, Tensor, Tensor, Tensor]
Views = Iterable[ViewRays]


def make_coarse(low: Tensor, high: Tensor, settings: CoarseSettings, *, align_corners: bool) -> DirectVoxGO:
    """An empty coarse field in the box from ``low`` (3,) to ``high`` (3,)."""
    return DirectVoxGO(
        low,
        high,
        num_voxels=settings.num_voxels,
        num_voxels_base=settings.num_voxels,
        alpha_init=settings.alpha_init,
        fast_color_thres=settings.fast_color_thres,
        align_corners=align_corners,
    )


def make_fine(
    low: Tensor, high: Tensor, settings: FineSettings, *, align_corners: bool, num_voxels: int | None = None
) -> DirectVoxGO:
    """An empty fine field in a box, by default at the resolution at which its training starts."""
    return DirectVoxGO(
        low,
        high,
        num_voxels=num_voxels or fine_resolutions(settings)[0],
        num_voxels_base=settings.num_voxels,
        alpha_init=settings.alpha_init,
        fast_color_thres=settings.fast_color_thres,
        rgbnet_dim=settings.rgbnet_dim,
        rgbnet_depth=settings.rgbnet_depth,
        rgbnet_width=settings.rgbnet_width,
        viewbase_pe=settings.viewbase_pe,
        align_corners=align_corners,
    )


def fine_resolutions(settings: FineSettings) -> list[int]:
    """Numbers of voxels from the start of the fine stage to its end."""
    return progressive_resolutions(settings.num_voxels, len(settings.pg_scale))


def start_coarse(
    views: Views, cameras: Tensor, near: float, far: float, settings: CoarseSettings, *, align_corners: bool
) -> DirectVoxGO:
    """A coarse field around the viewing frusta, in which nothing is learnt close to a camera.

    Args:
        views: all training rays.
        cameras: (N, 3) camera centres.
        near, far: range of the ray parameter in which the scene lies.

    Raises:
        UserError: the frusta span no volume.
    """
    low, high = frustum_bounds(views, near, far)
    if not bool((high > low).all() and (high - low).isfinite().all()):
        raise UserError(
            f"the training cameras see no volume between near {near:g} and far {far:g}: "
            f"their frusta span {low.tolist()} to {high.tolist()}"
        )
    field = make_coarse(low, high, settings, align_corners=align_corners).to(low.device)
    clear_near_cameras(field, cameras.to(low), near)
    return field


def voxel_learning_rates(field: DirectVoxGO, views: Views, *, near: float, stepsize: float) -> Tensor:
    """How many views see each voxel, (X, Y, Z); voxels that two or fewer see become free space.

    Raises:
        UserError: no voxel is seen by more than two views.
    """
    count = count_views(field, views, near=near, stepsize=stepsize)
    if not bool((count > 2).any()):
        raise UserError(
            "no part of the scene is seen by more than two training views: check poses, focal length and near/far"
        )
    field.mask_cache.mask &= count > 2
    return count


def start_fine(coarse: DirectVoxGO, settings: FineSettings) -> DirectVoxGO:
    """A fine field in the box of what the coarse one found, with its free space.

    Raises:
        UserError: the coarse field is empty, or as good as that.
    """
    try:
        low, high = occupied_bounds(coarse, settings.bbox_thres, settings.world_bound_scale)
        field = make_fine(low, high, settings, align_corners=coarse.align_corners).to(low.device)
    except ValueError as error:  # a flat box has no room for the voxels of the fine field either
        raise UserError(f"{error}: check the poses and near/far, or train the coarse stage for longer") from None
    field.set_mask(inherited_mask(coarse, field.grid_points(), settings.mask_cache_thres))
    return field


def grow(field: DirectVoxGO, num_voxels: int, settings: FineSettings) -> None:
    """Resample a fine field to more voxels. Its grids are new parameters afterwards, for a new optimiser."""
    field.scale_volume_grid(num_voxels)
    field.act_shift -= settings.decay_after_scale


def fills_its_box(coarse: DirectVoxGO, threshold: float) -> bool:
    """Whether a coarse field found something at every side of its box, as it does where a scene has no bounds."""
    occupied = coarse.alpha_at(coarse.grid_points()) > threshold
    sides = [side for axis in range(3) for side in (occupied.select(axis, 0), occupied.select(axis, -1))]
    return all(float(side.float().mean()) > 0.05 for side in sides)


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
        ValueError: no point does: the field is empty; or they lie in one plane.
    """
    points = field.grid_points()
    occupied = points[field.alpha_at(points) > threshold]
    if not len(occupied):
        raise ValueError(f"no voxel of the coarse field has an opacity above {threshold}: it has learnt empty space")
    low, high = occupied.amin(0), occupied.amax(0)
    if not bool((high > low).all()):
        raise ValueError(
            f"the voxels of the coarse field with an opacity above {threshold} are {len(occupied)} in one plane and "
            "span no volume"
        )
    margin = (high - low) * (enlarge - 1) / 2
    return low - margin, high + margin


@torch.no_grad()
def count_views(field: DirectVoxGO, views: Views, *, near: float, stepsize: float) -> Tensor:
    """How many views see each voxel, (X, Y, Z) float: those whose trilinear weights there sum to more than 1.

    As released, samples just outside of the box count with the weights that they have in its outermost voxels.
    """
    num_voxels = field.density.grid[0, 0].numel()
    count = torch.zeros(num_voxels, device=field.xyz_min.device)
    stepdist = float(stepsize * field.voxel_size)
    margin = (field.xyz_max - field.xyz_min) / (field.xyz_min.new_tensor(field.world_size) - 1).clamp(min=1)
    for _, chunks in itertools.groupby(views, key=lambda rays: rays[0]):
        seen = torch.zeros_like(count)
        for _, rays_o, rays_d, _ in chunks:
            box = (field.xyz_min, field.xyz_max)
            points = sample_around(rays_o, rays_d, *box, margin=margin, near=near, stepdist=stepdist).points
            ones = points.new_ones(len(points), 1)
            seen += trilinear_scatter(ones, field.density.corners(points))[:, 0]
        count += seen > 1
    return count.view(field.world_size)


@torch.no_grad()
def clear_near_cameras(field: DirectVoxGO, cameras: Tensor, near: float, *, density: float = -100.0) -> None:
    """Give voxels within ``near`` world units of any camera (N, 3) a density at which nothing is ever learnt."""
    for plane, points in enumerate(field.grid_points()):
        # Not by products of matrices, whose rounding would move the border.
        distance = torch.cdist(points.reshape(-1, 3), cameras, compute_mode="donot_use_mm_for_euclid_dist")
        close = distance.amin(1) <= near  # (Y * Z,)
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


@torch.no_grad()
def rays_that_hit(field: DirectVoxGO, views: Views, *, near: float, stepsize: float) -> Tensor:
    """Which of all rays, view by view, have a sample in a cell that is not known to be free: bool (R,), on the CPU."""
    hits = [field.hit_mask(rays_o, rays_d, near=near, stepsize=stepsize).cpu() for _, rays_o, rays_d, _ in views]
    return torch.cat(hits)


def put_around_parameters(new: VoxelField, old: VoxelField) -> None:
    """Let a field hold the grids' parameter objects of another one, with its own values: optimisers hold them, too."""
    for grid, held in ((new.density, old.density.grid), (new.k0, old.k0.grid)):
        held.data = grid.grid.data.to(held.device)
        grid.grid = held
