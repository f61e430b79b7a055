"""Pictures of a field: rays of the world through normalised device coordinates into the grid."""

from __future__ import annotations

import torch
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from perception.geometry.rays import NDC
from perception.ops.march_rays import March
from perception.radiance.sparse_grid import SparseGrid
from projects.streamrf.delta import Rendering

RAYS_AT_ONCE = 1 << 14


def to_field(
    ndc: tuple[float, float, float, float] | None, origins: Tensor, directions: Tensor
) -> tuple[Tensor, Tensor]:
    """Rays (N, 3) of the world (OpenGL axes) in the coordinates of a field.

    These are normalised device coordinates with the y axis downwards, as the published grids have them; directions get
    the length 1 there. Without ``ndc`` (fx, fy, width, height) y and z are turned round alone.
    """
    if ndc is None:
        flip = origins.new_tensor([1.0, -1.0, -1.0])
        return origins * flip, directions * flip
    flip = origins.new_tensor([1.0, -1.0, 1.0])
    fx, fy, width, height = ndc
    origins, directions = NDC(2 * fx / width, 2 * fy / height).rays(origins, directions)
    return origins * flip, torch.nn.functional.normalize(directions * flip, dim=-1)


def march_of(rendering: Rendering, stop_thresh: float | None = None) -> March:
    """How rays are marched, with the rendering's bound of light or another."""
    stop = rendering.stop_thresh if stop_thresh is None else stop_thresh
    return March(rendering.step_size, 0.0, rendering.background, rendering.sigma_thresh, stop)


@torch.no_grad()
def render_rays(grid: SparseGrid, rendering: Rendering, origins: Tensor, directions: Tensor) -> dict[str, Tensor]:
    """What rays see.

    Args:
        grid: the field.
        rendering: how.
        origins, directions: (N, 3) in the world, OpenGL axes.

    Returns:
        ``rgb`` (N, 3), which may exceed 1, ``accumulation`` (N, 1) and ``depth`` (N, 1), the distance of the mean of
        what is seen in world units.
    """
    parts = []
    for start, along in zip(origins.split(RAYS_AT_ONCE), directions.split(RAYS_AT_ONCE)):
        field_start, field_along = to_field(rendering.ndc, start, along)
        rgb, left, depth = grid.march(field_start, field_along, march_of(rendering))
        opacity = 1 - left
        mean = depth / opacity.clamp(min=1e-6)
        place = field_start + torch.nn.functional.normalize(field_along, dim=-1) * mean[:, None]
        parts.append((rgb, opacity[:, None], _distance(rendering, start, along, place)))
    if not parts:
        return {"rgb": origins.new_zeros(0, 3), **dict.fromkeys(("accumulation", "depth"), origins.new_zeros(0, 1))}
    return dict(zip(("rgb", "accumulation", "depth"), map(torch.cat, zip(*parts))))


def _distance(rendering: Rendering, start: Tensor, along: Tensor, place: Tensor) -> Tensor:
    """How far (N, 1) along rays of the world places (N, 3) of the field lie."""
    if rendering.ndc is None:
        return (place - start * start.new_tensor([1.0, -1.0, -1.0])).norm(dim=-1, keepdim=True)
    # z' = 1 + 2 / z, up to a place that is as far as single precision can tell from infinity.
    depth = 2 / (1 - place[:, 2:]).clamp(min=1e-4)
    unit = torch.nn.functional.normalize(along, dim=-1)
    return ((-depth - start[:, 2:]) / unit[:, 2:]).clamp(min=0)


@torch.no_grad()
def render_camera(grid: SparseGrid, rendering: Rendering, camera: Cameras) -> dict[str, Tensor]:
    """What one camera sees: ``rgb`` (H, W, 3), ``accumulation`` and ``depth`` (H, W, 1)."""
    rays = camera.generate_rays(camera_indices=0, keep_shape=True)
    shape = rays.origins.shape[:2]
    device = grid.radius.device
    found = render_rays(
        grid,
        rendering,
        rays.origins.reshape(-1, 3).float().to(device),
        rays.directions.reshape(-1, 3).float().to(device),
    )
    return {name: value.view(*shape, -1) for name, value in found.items()}
