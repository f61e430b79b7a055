"""Losses of voxel radiance fields."""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor


class RenderedSamples(Protocol):
    """N rendered rays and the M samples that made them: what the losses of DirectVoxGO look at."""

    @property
    def rgb_marched(self) -> Tensor:
        """(N, 3) colours."""

    @property
    def alphainv_last(self) -> Tensor:
        """(N,) light from the background."""

    @property
    def weights(self) -> Tensor:
        """(M,) share of a sample in its ray."""

    @property
    def raw_rgb(self) -> Tensor:
        """(M, 3) colour of a sample."""

    @property
    def ray_id(self) -> Tensor:
        """(M,) ray of a sample."""


def dvgo_losses(
    outputs: RenderedSamples, target: Tensor, *, weight_entropy_last: float, weight_rgbper: float
) -> dict[str, Tensor]:
    """The three losses of DirectVoxGO, each with its weight.

    Args:
        outputs: of :class:`~perception.radiance.dvgo.DirectVoxGO` or a field like it, for N rays.
        target: (N, 3) colours in [0, 1], over the same background.
        weight_entropy_last: of the entropy of the background's share, which makes rays either opaque or clear.
        weight_rgbper: of the squared colour error of single samples, weighted by their share in the ray (without a
            gradient to that share), summed over channels and samples and divided by N.

    Returns:
        ``rgb_loss``, ``entropy_loss`` and ``rgbper_loss``, to be summed; the last two only where their weight is not 0.
    """
    losses = {"rgb_loss": F.mse_loss(outputs.rgb_marched, target)}
    if weight_entropy_last:
        losses["entropy_loss"] = weight_entropy_last * background_entropy(outputs.alphainv_last)
    if weight_rgbper:
        losses["rgbper_loss"] = weight_rgbper * sample_colour_error(outputs, target)
    return losses


def background_entropy(alphainv_last: Tensor) -> Tensor:
    """Mean entropy of the background's share (N,) in rays: small where they are either opaque or clear."""
    clear = alphainv_last.clamp(1e-6, 1 - 1e-6)
    return -(clear * clear.log() + (1 - clear) * (1 - clear).log()).mean()


def sample_colour_error(outputs: RenderedSamples, target: Tensor) -> Tensor:
    """Squared colour error of samples against the colours (N, 3) of their rays, weighted by their share without a
    gradient to that, summed over channels and samples and divided by N."""
    error = (outputs.raw_rgb - target[outputs.ray_id]).square().sum(-1)  # (M,)
    return (outputs.weights.detach() * error).sum() / len(target)
