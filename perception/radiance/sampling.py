"""Equidistant samples along rays inside a box, as flat arrays.

A ray is ``o + t * d`` with ``d`` not necessarily of length 1. Sample k lies at ``o + t_min * d + k * stepdist * d /
|d|``: the first one where the ray enters the box, no jitter (DirectVoxGO).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from perception.ops.ray_aabb import ray_aabb
from perception.ops.sample_rays import sample_rays as _sample_rays
from perception.radiance.grids import MaskGrid


class RaySamples(NamedTuple):
    """M samples of N rays, sorted by ray, then by step."""

    points: Tensor  # (M, 3) world units
    ray_id: Tensor  # (M,) int64 in [0, N)
    step_id: Tensor  # (M,) int64, number of steps from where the ray enters the box
    t_min: Tensor  # (N,) ray parameter at which the samples of a ray begin, in units of |d|

    def select(self, keep: Tensor) -> RaySamples:
        """Some of the samples, by index (K,) or by a test (M,); a ray's ``t_min`` stays."""
        return RaySamples(self.points[keep], self.ray_id[keep], self.step_id[keep], self.t_min)


@torch.no_grad()
def sample_rays(
    rays_o: Tensor, rays_d: Tensor, xyz_min: Tensor, xyz_max: Tensor, *, near: float, stepdist: float
) -> RaySamples:
    """All samples of rays that lie inside a box.

    Args:
        rays_o, rays_d: (N, 3) origins and directions.
        xyz_min, xyz_max: (3,) corners of the box.
        near: smallest ray parameter, in units of ``|d|``.
        stepdist: distance between samples, world units.
    """
    steps, t_min = _steps(rays_o, rays_d, xyz_min, xyz_max, near, stepdist)
    return RaySamples(*_sample_rays(*steps, xyz_min, xyz_max, stepdist), t_min)


@torch.no_grad()
def sample_around(
    rays_o: Tensor,
    rays_d: Tensor,
    xyz_min: Tensor,
    xyz_max: Tensor,
    *,
    margin: Tensor,
    near: float,
    stepdist: float,
) -> RaySamples:
    """The samples of :func:`sample_rays`, and those that follow where a ray has left the box or passes close to it.

    A ray's first sample is the same: where it enters the box, or would if the box's sides went on.

    Args:
        rays_o, rays_d: (N, 3) origins and directions.
        xyz_min, xyz_max: (3,) corners of the box.
        margin: (3,) how far outside of the box samples are kept, world units.
        near: smallest ray parameter, in units of ``|d|``.
        stepdist: distance between samples, world units.
    """
    low, high = xyz_min - margin, xyz_max + margin
    (first, direction, _), t_min = _steps(rays_o, rays_d, xyz_min, xyz_max, near, stepdist)
    t_max = ray_aabb(rays_o, rays_d, low, high, near)[1]
    count = ((t_max - t_min) * rays_d.norm(dim=-1) / stepdist).floor().clamp(min=0).long() + 1
    return RaySamples(*_sample_rays(first, direction, count, low, high, stepdist), t_min)


@torch.no_grad()
def sample_occupied(
    rays_o: Tensor, rays_d: Tensor, xyz_min: Tensor, xyz_max: Tensor, mask: MaskGrid, *, near: float, stepdist: float
) -> RaySamples:
    """The samples of :func:`sample_rays` at which ``mask`` holds, without keeping the others."""
    steps, t_min = _steps(rays_o, rays_d, xyz_min, xyz_max, near, stepdist)
    cells = (mask.mask, mask.xyz2ijk_scale, mask.xyz2ijk_shift, mask.may_touch)
    return RaySamples(*_sample_rays(*steps, xyz_min, xyz_max, stepdist, *cells), t_min)


def _steps(
    rays_o: Tensor, rays_d: Tensor, xyz_min: Tensor, xyz_max: Tensor, near: float, stepdist: float
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """First sample (N, 3), unit direction (N, 3) and number of samples (N,) of each ray; and ``t_min``."""
    t_min, t_max = ray_aabb(rays_o, rays_d, xyz_min, xyz_max, near)
    length = rays_d.norm(dim=-1)
    count = ((t_max - t_min) * length / stepdist).ceil().clamp(min=1).long()
    return (rays_o + rays_d * t_min[:, None], rays_d / length[:, None], count), t_min
