"""From raw density to opacity, and back."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def raw2alpha(density: Tensor, shift: Tensor | float, interval: float | Tensor) -> Tensor:
    """Opacity of a step through a medium: ``1 - (1 + exp(density + shift)) ** -interval`` (DirectVoxGO, eq. 6).

    Args:
        density: raw density, any shape.
        shift: bias that makes density 0 nearly transparent, see :func:`alpha_shift`; no gradient is passed to it.
        interval: length of the step in voxels of the base resolution.

    Returns:
        alpha in [0, 1]. Its gradient stays finite where ``exp`` overflows.
    """
    return _Raw2Alpha.apply(density, torch.as_tensor(shift), float(interval))


def alpha_shift(alpha_init: float) -> float:
    """The ``shift`` with which density 0 gives opacity ``alpha_init`` over an interval of 1."""
    if not 0 < alpha_init < 1:
        raise ValueError(f"alpha_init must lie between 0 and 1, not {alpha_init}")
    return math.log(1 / (1 - alpha_init) - 1)


class _Raw2Alpha(torch.autograd.Function):
    @staticmethod
    def forward(ctx, density: Tensor, shift: Tensor, interval: float) -> Tensor:
        exponential = torch.exp(density + shift.to(density))
        ctx.save_for_backward(exponential)
        ctx.interval = interval
        return 1 - (1 + exponential).pow(-interval)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_alpha: Tensor):
        (exponential,) = ctx.saved_tensors
        slope = exponential.clamp(max=1e10) * (1 + exponential).pow(-ctx.interval - 1) * ctx.interval
        return slope * grad_alpha, None, None
