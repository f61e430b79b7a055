"""Volume rendering of ragged samples: opacities to weights, and sums over the samples of each ray."""

from __future__ import annotations

import torch
from torch import Tensor

MIN_TRANSMITTANCE = 1e-3  # a ray ends after the sample behind which less light than this passes


def alphas_to_weights(alpha: Tensor, ray_id: Tensor, num_rays: int) -> tuple[Tensor, Tensor]:
    """Weights ``w_i = alpha_i * prod_{j<i} (1 - alpha_j)`` of samples along each ray.

    A ray ends after the sample that brings its transmittance below 1e-3: later weights are 0, as in DirectVoxGO.

    Args:
        alpha: (M,) opacities, sorted by ray, then from near to far.
        ray_id: (M,) int64 ray of each sample, non-decreasing.
        num_rays: N.

    Returns:
        ``weights`` (M,) and ``alphainv_last`` (N,), the transmittance at the end of each ray (1 for a ray without
        samples). The gradient is the exact one of the sequential product, with ``1 - alpha + 1e-10`` in the
        denominator.
    """
    return _AlphasToWeights.apply(alpha, ray_id, num_rays)


def segment_sum(values: Tensor, ray_id: Tensor, num_rays: int) -> Tensor:
    """Sum values (M,) or (M, C) over the samples of each ray: (N,) or (N, C)."""
    return values.new_zeros(num_rays, *values.shape[1:]).index_add(0, ray_id, values)


class _AlphasToWeights(torch.autograd.Function):
    """Rays are laid out as rows of a rectangle, in which a running product is one call and exact."""

    @staticmethod
    def forward(ctx, alpha: Tensor, ray_id: Tensor, num_rays: int):
        alphainv_last = alpha.new_ones(num_rays)
        if not len(alpha):
            ctx.empty = True
            return alpha.clone(), alphainv_last
        rays, count = torch.unique_consecutive(ray_id, return_counts=True)  # (R,) rays that have samples
        length = int(count.max())
        first = count.cumsum(0) - count
        row = torch.arange(len(rays), device=alpha.device).repeat_interleave(count)  # (M,)
        place = row * length + (torch.arange(len(alpha), device=alpha.device) - first[row])
        clear = alpha.new_ones(len(rays) * length)
        clear[place] = 1 - alpha
        after = clear.view(len(rays), length).cumprod(1)  # (R, L) transmittance behind each sample
        before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], 1)
        seen = before >= MIN_TRANSMITTANCE
        transmittance = before.view(-1)[place]
        weights = torch.where(seen.view(-1)[place], transmittance * alpha, 0)
        last = seen.sum(1) - 1
        alphainv_last[rays] = after.gather(1, last[:, None])[:, 0]
        ctx.empty = False
        ctx.save_for_backward(alpha, weights, transmittance, seen, alphainv_last, rays, place)
        return weights, alphainv_last

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_weights: Tensor, grad_last: Tensor):
        if ctx.empty:
            return torch.zeros_like(grad_weights), None, None
        alpha, weights, transmittance, seen, alphainv_last, rays, place = ctx.saved_tensors
        pulled = grad_weights.new_zeros(seen.numel())
        pulled[place] = grad_weights * weights
        pulled = pulled.view_as(seen)  # (R, L)
        # Everything behind sample i depends on 1 - alpha_i as a factor: later weights and the last transmittance.
        behind = pulled.flip(1).cumsum(1).flip(1) - pulled + (grad_last * alphainv_last)[rays, None]
        grad = grad_weights * transmittance - behind.view(-1)[place] / (1 - alpha + 1e-10)
        return torch.where(seen.view(-1)[place], grad, 0), None, None
