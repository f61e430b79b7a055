"""Positional encodings."""

from __future__ import annotations

import torch
from torch import Tensor


def frequency_bands(num_frequencies: int) -> Tensor:
    """``1, 2, 4, ...``: (num_frequencies,)."""
    return 2.0 ** torch.arange(num_frequencies)


def positional_encoding(x: Tensor, bands: Tensor) -> Tensor:
    """``[x, sin(x * bands), cos(x * bands)]`` of points (..., D): (..., D + 2 * D * F).

    Within the sines, and within the cosines, all bands of one component follow each other (DirectVoxGO's order). There
    is no factor of pi.

    Example:
        >>> positional_encoding(torch.tensor([[0.5]]), frequency_bands(2))  # x, two sines, two cosines
        tensor([[0.5000, 0.4794, 0.8415, 0.8776, 0.5403]])
    """
    scaled = (x[..., None] * bands).flatten(-2)  # (..., D, F) -> (..., D * F)
    return torch.cat([x, scaled.sin(), scaled.cos()], -1)


def nerf_encoding(x: Tensor, bands: Tensor) -> Tensor:
    """``[x, sin(x), cos(x), sin(2 x), cos(2 x), ...]`` of points (..., D): (..., D + 2 * D * F).

    The numbers of :func:`positional_encoding` in NeRF's order: all components of one function follow each other.

    Example:
        >>> nerf_encoding(torch.tensor([[0.5]]), frequency_bands(2))
        tensor([[0.5000, 0.4794, 0.8776, 0.8415, 0.5403]])
    """
    scaled = x[..., None, :] * bands[:, None]  # (..., F, D)
    both = torch.stack([scaled.sin(), scaled.cos()], -2)  # (..., F, 2, D)
    return torch.cat([x, both.flatten(-3)], -1)
