"""Equidistant samples of rays that lie in a box and in marked cells of a mask."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from perception.ops.backend import native
from perception.ops.registration import FULL, native_kernel

__all__ = ["ragged_range", "round_half_away", "sample_rays"]

STRIDES = (64, 8)  # samples that are dropped at once where no marked cell is near them


@torch.no_grad()
def sample_rays(
    start: Tensor,
    unit: Tensor,
    count: Tensor,
    xyz_min: Tensor,
    xyz_max: Tensor,
    stepdist: float,
    mask: Tensor | None = None,
    mask_scale: Tensor | None = None,
    mask_shift: Tensor | None = None,
    may_touch: Callable[[Tensor, float], Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The samples ``start + unit * (k * stepdist)``, k = 0, 1, ..., of each ray that lie in a box.

    With a mask, only those whose nearest cell is marked; cell coordinates are ``point * mask_scale + mask_shift``,
    rounded to the nearest integer, halves away from zero (DirectVoxGO, arXiv:2111.11215).

    Args:
        start: first sample of each ray, in world units, of shape :math:`(N, 3)`.
        unit: unit directions of shape :math:`(N, 3)`.
        count: samples of each ray, int64 of shape :math:`(N,)`.
        xyz_min: lowest corner of the box, of shape :math:`(3,)`.
        xyz_max: highest corner.
        stepdist: distance between samples, world units.
        mask: marked cells, bool of shape :math:`(X, Y, Z)`.
        mask_scale: cells per world unit, of shape :math:`(3,)`.
        mask_shift: cell coordinates of the origin, of shape :math:`(3,)`.
        may_touch: says of points :math:`(P, 3)` and a distance whether a marked cell in the box may be that near; where
            it says ``False``, none is. It changes no result. The native kernel looks at every sample and stores those
            that stay; the reference, which makes them first, drops runs of 64, then of 8 by it, so that time and memory
            follow the space that is marked, with 1/64 of the cost of a sample for each step through free space.

    Returns:
        Points :math:`(M, 3)`, ray of each (int64, :math:`(M,)`) and its number k (int64, :math:`(M,)`), sorted by ray,
        then by number.

    Raises:
        RuntimeError: there is a mask without its scale or shift.
    """
    if native("sample_rays", start, unit, xyz_min, xyz_max):
        return torch.ops.perception.sample_rays(
            start, unit, count, xyz_min, xyz_max, mask, mask_scale, mask_shift, stepdist
        )

    def at(ray_id: Tensor, step: Tensor) -> Tensor:
        return start[ray_id] + unit[ray_id] * (step.to(start.dtype) * stepdist)[:, None]

    ray_id, step_id = ragged_range(count) if may_touch is None else _near_marked(count, stepdist, at, may_touch)
    points = at(ray_id, step_id)
    keep = ((points >= xyz_min) & (points <= xyz_max)).all(-1)
    if mask is not None:
        if mask_scale is None or mask_shift is None:
            raise RuntimeError("a mask needs mask_scale and mask_shift, by which points find their cells")
        cell = round_half_away(points * mask_scale + mask_shift)
        size = cell.new_tensor(mask.shape)
        keep &= ((cell >= 0) & (cell < size)).all(-1)
        i, j, k = torch.nan_to_num(cell).clamp(min=0).minimum(size - 1).long().unbind(-1)
        keep &= mask.reshape(-1)[(i * mask.shape[1] + j) * mask.shape[2] + k]
    return points[keep], ray_id[keep], step_id[keep]


def _near_marked(
    count: Tensor,
    stepdist: float,
    at: Callable[[Tensor, Tensor], Tensor],
    may_touch: Callable[[Tensor, float], Tensor],
) -> tuple[Tensor, Tensor]:
    """Ray and number of the samples in runs that may touch a marked cell."""
    ray_id, run = ragged_range((count + STRIDES[0] - 1) // STRIDES[0])
    for stride, next_stride in zip(STRIDES, (*STRIDES[1:], 1)):
        near = may_touch(at(ray_id, run * stride + (stride - 1) / 2), (stride - 1) / 2 * stepdist)
        ray_id, run = ray_id[near], run[near]
        parts = stride // next_stride
        inner = torch.arange(parts, device=run.device)
        run = (run[:, None] * parts + inner).reshape(-1)  # (runs, parts) -> (runs * parts)
        ray_id = ray_id.repeat_interleave(parts)
        exists = run * next_stride < count[ray_id]
        ray_id, run = ray_id[exists], run[exists]
    return ray_id, run


def ragged_range(count: Tensor) -> tuple[Tensor, Tensor]:
    """For counts (N,): the row of each of sum(count) elements, and its place 0, 1, ... in the row."""
    row = torch.arange(len(count), device=count.device).repeat_interleave(count)
    first = count.cumsum(0) - count
    return row, torch.arange(len(row), device=count.device) - first[row]


def round_half_away(values: Tensor) -> Tensor:
    """Round to the nearest integer, halves away from zero as C does (``torch.round`` takes the even one)."""
    whole = values.trunc()
    return whole + values.sign() * ((values - whole).abs() >= 0.5)


@native_kernel(
    "sample_rays(Tensor start, Tensor unit, Tensor count, Tensor xyz_min, Tensor xyz_max, Tensor? mask, "
    "Tensor? mask_scale, Tensor? mask_shift, float stepdist) -> (Tensor, Tensor, Tensor)",
    types=FULL,
)
def _fake(start, unit, count, xyz_min, xyz_max, mask, mask_scale, mask_shift, stepdist):
    number = torch.library.get_ctx().new_dynamic_size()
    ids = (start.new_empty(number, dtype=torch.long) for _ in range(2))
    return start.new_empty(number, 3), *ids
