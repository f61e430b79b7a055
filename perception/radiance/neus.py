"""NeuS (arXiv:2106.10689): opacities of samples along a ray from a signed distance, and losses on the field."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ALPHA_EPS = 1e-5
OPACITY_MARGIN = 1e-3  # by which opacities keep from 0 and 1 where a logarithm is taken


class LearnedVariance(nn.Module):
    """How sharp a surface is: ``inv_s = exp(10 * variance)``, from 1e-6 to 1e6 per world unit.

    Args:
        initial: value of ``variance`` at the beginning.
    """

    def __init__(self, initial: float = 0.3):
        super().__init__()
        self.variance = nn.Parameter(torch.tensor(initial))

    @property
    def inv_s(self) -> Tensor:
        """A number without a dimension."""
        return (self.variance * 10).exp().clamp(1e-6, 1e6)


def neus_alpha(
    sdf: Tensor, normal: Tensor, directions: Tensor, dists: Tensor | float, inv_s: Tensor | float, anneal: float = 1.0
) -> Tensor:
    """Opacity (M,) of sections of rays, from the distance at their middles.

    Args:
        sdf: (M,) in the middle of each section.
        normal: (M, 3) unit gradients of the distance there.
        directions: (M, 3) of the rays, unit vectors.
        dists: (M,) or (M, 1) lengths of the sections, or one for all.
        inv_s: sharpness, see :class:`LearnedVariance`.
        anneal: share, from 0 to 1, by which surfaces that face away stop to count.

    Example:
        >>> head_on = torch.tensor([[0.0, 0.0, 1.0]])
        >>> neus_alpha(torch.tensor([0.0]), head_on, -head_on, 0.01, inv_s=400.0)
        tensor([0.8647])
    """
    cosine = (directions * normal).sum(-1)
    slope = -(F.relu(-cosine * 0.5 + 0.5) * (1 - anneal) + F.relu(-cosine) * anneal)  # never positive
    if isinstance(dists, Tensor):
        dists = dists.reshape(-1)
    return section_alpha(sdf, slope, dists, inv_s)


def section_alpha(sdf: Tensor, slope: Tensor | float, dists: Tensor | float, inv_s: Tensor | float) -> Tensor:
    """Opacity (M,) of sections of which distance in the middle, slope along the ray and length are given."""
    half = slope * dists * 0.5
    before, after = torch.sigmoid((sdf - half) * inv_s), torch.sigmoid((sdf + half) * inv_s)
    return ((before - after + ALPHA_EPS) / (before + ALPHA_EPS)).clamp(0, 1)


def eikonal_loss(gradient: Tensor) -> Tensor:
    """Mean squared deviation of the gradients' (M, 3) length from 1; 0 without samples."""
    return _mean((gradient.norm(dim=-1) - 1).square())


def sparsity_loss(sdf: Tensor, scale: float = 1.0) -> Tensor:
    """Mean of ``exp(-scale * |sdf|)`` over samples (M,), which keeps surfaces out of free space; 0 without samples."""
    return _mean((-scale * sdf.abs()).exp())


def mask_loss(opacity: Tensor, mask: Tensor) -> Tensor:
    """Binary cross entropy of opacities (N,) against coverages (N,) in [0, 1]."""
    return F.binary_cross_entropy(opacity.clamp(OPACITY_MARGIN, 1 - OPACITY_MARGIN), mask)


def opaque_loss(opacity: Tensor) -> Tensor:
    """Entropy of opacities (N,), which makes rays either opaque or clear."""
    opacity = opacity.clamp(OPACITY_MARGIN, 1 - OPACITY_MARGIN)
    return F.binary_cross_entropy(opacity, opacity)


def _mean(values: Tensor) -> Tensor:
    return values.mean() if len(values) else values.sum()
