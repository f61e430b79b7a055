"""Equidistant samples of rays that lie in a box and in marked cells of a mask."""

from __future__ import annotations

import torch
from torch import Tensor

from perception.ops.backend import native

__all__ = ["ragged_range", "round_half_away", "sample_rays"]


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
    ray_id, step_id = ragged_range(count)
    points = start[ray_id] + unit[ray_id] * (step_id.to(start.dtype) * stepdist)[:, None]
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


def ragged_range(count: Tensor) -> tuple[Tensor, Tensor]:
    """For counts (N,): the row of each of sum(count) elements, and its place 0, 1, ... in the row."""
    row = torch.arange(len(count), device=count.device).repeat_interleave(count)
    first = count.cumsum(0) - count
    return row, torch.arange(len(row), device=count.device) - first[row]


def round_half_away(values: Tensor) -> Tensor:
    """Round to the nearest integer, halves away from zero as C does (``torch.round`` takes the even one)."""
    whole = values.trunc()
    return whole + values.sign() * ((values - whole).abs() >= 0.5)
