"""Distortion loss: pulls the weights of a ray together (mip-NeRF 360), in time and memory linear in the samples."""

from __future__ import annotations

import torch
from torch import Tensor


def distortion_loss(
    weights: Tensor, midpoints: Tensor, interval: float | Tensor, ray_id: Tensor, num_rays: int | None = None
) -> Tensor:
    r"""Mean over rays of :math:`\sum_i \frac{1}{3} \delta w_i^2 + \sum_{i, j} w_i w_j |s_i - s_j|`.

    The double sum is taken from running sums of w and w * s along each ray (DVGO v2, arXiv:2206.05085, section 3.1).

    Args:
        weights: (M,) of samples sorted by ray, then from near to far.
        midpoints: (M,) places s of the samples along their rays, usually in [0, 1]; no gradient is passed to them.
        interval: delta, the length of a sample in the same measure, or those of all samples (M,), without gradient.
        ray_id: (M,) int64, non-decreasing.
        num_rays: by which the sum is divided; by default by as many as there are up to the last one with a sample, as
            the released codes' library does (torch_efficient_distloss).

    Example:
        >>> weights, midpoints = torch.tensor([0.5, 0.5, 0.8]), torch.tensor([0.25, 0.75, 0.25])
        >>> distortion_loss(weights, midpoints, 0.5, torch.tensor([0, 0, 1]))
        tensor(0.2200)
    """
    if num_rays is None:
        num_rays = int(ray_id[-1]) + 1 if len(ray_id) else 1
    return _Distortion.apply(weights, midpoints, interval, ray_id, num_rays)


class _Distortion(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights: Tensor, midpoints: Tensor, interval: float | Tensor, ray_id: Tensor, num_rays: int):
        before, before_s, total, total_s = _running_sums(weights, midpoints, ray_id)
        ctx.save_for_backward(weights, midpoints, before, before_s, total, total_s)
        ctx.interval, ctx.num_rays = interval, num_rays
        own = interval / 3 * weights.square()
        return (own + 2 * weights * (midpoints * before - before_s)).sum() / num_rays

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        weights, midpoints, before, before_s, total, total_s = ctx.saved_tensors
        behind, behind_s = total - before - weights, total_s - before_s - weights * midpoints
        pairs = midpoints * (before - behind) + behind_s - before_s
        return grad * (2 * pairs + 2 / 3 * ctx.interval * weights) / ctx.num_rays, None, None, None, None


def _running_sums(weights: Tensor, midpoints: Tensor, ray_id: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums of w and w * s over the samples in front of each on its ray, then over its whole ray, all (M,)."""
    if not len(weights):
        return (weights,) * 4
    _, count = torch.unique_consecutive(ray_id, return_counts=True)
    end = count.cumsum(0)
    # Running sums over all rays, from which those of the rays in front are taken off: double, or little would be left.
    values = torch.stack([weights, weights * midpoints]).double()
    up_to = values.cumsum(1)
    before = up_to - values
    first = before[:, end - count].repeat_interleave(count, dim=1)
    last = up_to[:, end - 1].repeat_interleave(count, dim=1)
    return (*(before - first).to(weights.dtype), *(last - first).to(weights.dtype))
