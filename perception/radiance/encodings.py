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
