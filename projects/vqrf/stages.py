"""What happens between the stages: from cameras to a coarse field, from coarse to fine, and when it grows."""

from __future__ import annotations

from torch import Tensor

from perception.engine.errors import UserError
from perception.radiance.dvgo import DirectVoxGO
from perception.radiance.dvgo_stages import (
    Views,
    clear_near_cameras,
    count_views,
    frustum_bounds,
    inherited_mask,
    occupied_bounds,
    progressive_resolutions,
)
from projects.vqrf.settings import CoarseSettings, FineSettings


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
        UserError: the coarse field is empty.
    """
    try:
        low, high = occupied_bounds(coarse, settings.bbox_thres, settings.world_bound_scale)
    except ValueError as error:
        raise UserError(f"{error}: check the poses and near/far, or train the coarse stage for longer") from None
    field = make_fine(low, high, settings, align_corners=coarse.align_corners).to(low.device)
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
