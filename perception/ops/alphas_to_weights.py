"""Volume rendering of ragged samples: opacities to weights."""

from __future__ import annotations

import torch
from torch import Tensor

from perception.ops.backend import native
from perception.ops.registration import FULL, native_kernel, no_second_derivative

__all__ = ["alphas_to_weights"]

MIN_TRANSMITTANCE = 1e-3


def alphas_to_weights(
    alpha: Tensor, ray_id: Tensor, num_rays: int, min_transmittance: float = MIN_TRANSMITTANCE
) -> tuple[Tensor, Tensor]:
    r"""Weights :math:`w_i = \alpha_i \prod_{j<i} (1 - \alpha_j)` of samples along each ray.

    A ray ends after the sample that brings its transmittance below the bound: later weights are 0, as in DirectVoxGO
    (arXiv:2111.11215). The gradient is the exact one of the sequential product, with :math:`1 - \alpha + 10^{-10}` in
    the denominator.

    Args:
        alpha: opacities of shape :math:`(M,)`, sorted by ray, then from near to far.
        ray_id: ray of each sample, non-decreasing, int64 of shape :math:`(M,)`.
        num_rays: N.
        min_transmittance: behind less light than this a ray ends.

    Returns:
        Weights of shape :math:`(M,)`, and the transmittance at the end of each ray of shape :math:`(N,)` (1 for a ray
        without samples).

    Example:
        >>> weights, left = alphas_to_weights(torch.tensor([0.5, 0.5, 0.2]), torch.tensor([0, 0, 1]), num_rays=2)
        >>> weights, left
        (tensor([0.5000, 0.2500, 0.2000]), tensor([0.2500, 0.8000]))
    """
    if native("alphas_to_weights", alpha):
        ray = torch.arange(num_rays + 1, device=alpha.device)
        offsets = torch.searchsorted(ray_id, ray)
        weights, _, last = torch.ops.perception.alphas_to_weights(alpha, offsets, min_transmittance)
        return weights, last
    return _AlphasToWeights.apply(alpha, ray_id, num_rays, min_transmittance)


class _AlphasToWeights(torch.autograd.Function):
    """Rays are laid out as rows of a rectangle, in which a running product is one call and exact."""

    @staticmethod
    def forward(ctx, alpha: Tensor, ray_id: Tensor, num_rays: int, min_transmittance: float):
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
        seen = before >= min_transmittance
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
            return torch.zeros_like(grad_weights), None, None, None
        alpha, weights, transmittance, seen, alphainv_last, rays, place = ctx.saved_tensors
        pulled = grad_weights.new_zeros(seen.numel())
        pulled[place] = grad_weights * weights
        pulled = pulled.view_as(seen)  # (R, L)
        # Everything behind sample i depends on 1 - alpha_i as a factor: later weights and the last transmittance.
        behind = pulled.flip(1).cumsum(1).flip(1) - pulled + (grad_last * alphainv_last)[rays, None]
        grad = grad_weights * transmittance - behind.view(-1)[place] / (1 - alpha + 1e-10)
        return torch.where(seen.view(-1)[place], grad, 0), None, None, None


def _remember(ctx, inputs, output):
    alpha, offsets, ctx.min_transmittance = inputs
    ctx.save_for_backward(alpha, *output, offsets)


def _derivative(ctx, grad_weights, _, grad_last):
    pulled = torch.ops.perception.alphas_to_weights_backward(
        grad_weights, grad_last, *ctx.saved_tensors, ctx.min_transmittance
    )
    return pulled, None, None


@native_kernel(
    "alphas_to_weights(Tensor alpha, Tensor offsets, float min_transmittance) -> (Tensor, Tensor, Tensor)",
    types=FULL,
    setup_context=_remember,
    backward=_derivative,
)
def _fake(alpha, offsets, min_transmittance):
    return torch.empty_like(alpha), torch.empty_like(alpha), alpha.new_empty(offsets.shape[0] - 1)


@native_kernel(
    "alphas_to_weights_backward(Tensor grad_weights, Tensor grad_last, Tensor alpha, Tensor weights, "
    "Tensor transmittance, Tensor last, Tensor offsets, float min_transmittance) -> Tensor",
    backward=no_second_derivative("alphas_to_weights"),
)
def _fake_backward(grad_weights, grad_last, alpha, weights, transmittance, last, offsets, min_transmittance):
    return torch.empty_like(alpha)
