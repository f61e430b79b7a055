"""How much each voxel contributes to the training views (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from perception.ops.trilinear import trilinear_scatter
from perception.radiance.dvgo import DirectVoxGO
from perception.radiance.dvgo_stages import Views


@torch.no_grad()
def importance_scores(
    field: DirectVoxGO, views: Views, *, near: float, stepsize: float, on_rays: Callable[[int], None] | None = None
) -> Tensor:
    """Sum over all rays and samples of rendering weight times trilinear weight.

    Args:
        field: a trained fine field.
        views: all training rays.
        near: smallest ray parameter, in units of the direction's length.
        stepsize: distance between samples in voxels.
        on_rays: receives the number of rays of each chunk that is done.

    Returns:
        (V,) non-negative, voxels in (x, y, z) order. Its sum is that of all weights, up to samples at the box's faces.
    """
    num_voxels = field.density.grid[0, 0].numel()
    scores = torch.zeros(num_voxels, device=field.xyz_min.device)
    for _, rays_o, rays_d, _ in views:
        corners, weights = field.ray_weights(rays_o, rays_d, near=near, stepsize=stepsize)
        scores += trilinear_scatter(weights[:, None], corners)[:, 0]
        if on_rays is not None:
            on_rays(len(rays_o))
    return scores
