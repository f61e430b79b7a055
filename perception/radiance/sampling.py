"""Equidistant samples along rays inside a box, as flat arrays; free space is skipped in large steps.

A ray is ``o + t * d`` with ``d`` not necessarily of length 1. Sample k lies at ``o + t_min * d + k * stepdist * d /
|d|``: the first one where the ray enters the box, no jitter (DirectVoxGO).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from perception.ops.backend import native
from perception.ops.ray_aabb import ray_aabb
from perception.ops.sample_rays import ragged_range
from perception.ops.sample_rays import sample_rays as _sample_rays
from perception.radiance.grids import MaskGrid

STRIDES = (64, 8)  # samples that are skipped at once where the mask shows nothing near them


class RaySamples(NamedTuple):
    """M samples of N rays, sorted by ray, then by step."""

    points: Tensor  # (M, 3) world units
    ray_id: Tensor  # (M,) int64 in [0, N)
    step_id: Tensor  # (M,) int64, number of steps from where the ray enters the box
    t_min: Tensor  # (N,) ray parameter at which the samples of a ray begin, in units of |d|


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
    return _Walk(rays_o, rays_d, xyz_min, xyz_max, near, stepdist).samples()


@torch.no_grad()
def sample_occupied(
    rays_o: Tensor, rays_d: Tensor, xyz_min: Tensor, xyz_max: Tensor, mask: MaskGrid, *, near: float, stepdist: float
) -> RaySamples:
    """The samples of :func:`sample_rays` at which ``mask`` holds, without making the others.

    The native kernel looks at every sample and stores those that stay. Without it, runs of 64, then of 8 samples are
    dropped when no marked cell is near them, so that time and memory follow the space that is marked, with 1/64 of the
    cost of a sample for each step through free space.
    """
    walk = _Walk(rays_o, rays_d, xyz_min, xyz_max, near, stepdist)
    if native("sample_rays", walk.start, walk.unit, xyz_min, xyz_max):
        return walk.samples(mask)
    ray_id, run = ragged_range(_ceil_div(walk.count, STRIDES[0]))
    for stride, next_stride in zip(STRIDES, (*STRIDES[1:], 1)):
        middle = walk.points(ray_id, run * stride + (stride - 1) / 2)
        near_marked = mask.may_touch(middle, (stride - 1) / 2 * stepdist)
        ray_id, run = ray_id[near_marked], run[near_marked]
        parts = stride // next_stride
        inner = torch.arange(parts, device=run.device)
        run = (run[:, None] * parts + inner).reshape(-1)  # (runs, parts) -> (runs * parts)
        ray_id = ray_id.repeat_interleave(parts)
        exists = run * next_stride < walk.count[ray_id]
        ray_id, run = ray_id[exists], run[exists]
    samples = walk.inside(ray_id, run)
    return _select(samples, mask(samples.points))


class _Walk:
    """Where the samples of a batch of rays are."""

    def __init__(self, rays_o: Tensor, rays_d: Tensor, xyz_min: Tensor, xyz_max: Tensor, near: float, stepdist: float):
        self.xyz_min, self.xyz_max, self.stepdist = xyz_min, xyz_max, stepdist
        self.t_min, t_max = ray_aabb(rays_o, rays_d, xyz_min, xyz_max, near)
        length = rays_d.norm(dim=-1)
        self.count = ((t_max - self.t_min) * length / stepdist).ceil().clamp(min=1).long()  # (N,)
        self.start = rays_o + rays_d * self.t_min[:, None]
        self.unit = rays_d / length[:, None]

    def samples(self, mask: MaskGrid | None = None) -> RaySamples:
        cells = () if mask is None else (mask.mask, mask.xyz2ijk_scale, mask.xyz2ijk_shift)
        return RaySamples(
            *_sample_rays(self.start, self.unit, self.count, self.xyz_min, self.xyz_max, self.stepdist, *cells),
            self.t_min,
        )

    def points(self, ray_id: Tensor, step: Tensor) -> Tensor:
        return self.start[ray_id] + self.unit[ray_id] * (step * self.stepdist)[:, None]

    def inside(self, ray_id: Tensor, step_id: Tensor) -> RaySamples:
        points = self.points(ray_id, step_id)
        samples = RaySamples(points, ray_id, step_id, self.t_min)
        return _select(samples, ((points >= self.xyz_min) & (points <= self.xyz_max)).all(-1))


def _select(samples: RaySamples, keep: Tensor) -> RaySamples:
    return RaySamples(samples.points[keep], samples.ray_id[keep], samples.step_id[keep], samples.t_min)


def _ceil_div(count: Tensor, divisor: int) -> Tensor:
    return (count + divisor - 1) // divisor
