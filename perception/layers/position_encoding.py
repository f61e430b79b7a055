"""Sine encodings of positions (arXiv 1706.03762, section 3.5; for images arXiv 2005.12872, appendix A.4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sine_features(positions: Tensor, num_feats: int, temperature: float = 10000.0) -> Tensor:
    """Sines and cosines of geometrically falling frequencies.

    Args:
        positions: (...) in radians at the highest frequency.
        num_feats: channels per position, even.
        temperature: ratio of the highest frequency to the (unreached) lowest.

    Returns:
        (..., num_feats): sines at even, cosines at odd channels, a pair for each frequency.
    """
    index = torch.arange(num_feats, dtype=torch.float32, device=positions.device)
    angle = positions[..., None] / temperature ** (2 * torch.div(index, 2, rounding_mode="floor") / num_feats)
    return torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], -1).flatten(-2)


def sine_position_encoding(mask: Tensor, num_feats: int, temperature: float = 10000.0) -> Tensor:
    """Normalised sine encoding of pixel positions, counted over valid pixels only.

    Args:
        mask: (B, H, W) bool, True where the pixel is padding.
        num_feats: channels per axis (half of the model width), even.
        temperature: as in :func:`sine_features`.

    Returns:
        (B, 2 * num_feats, H, W) float32, the y half first; sines and cosines interleaved.
    """
    valid = (~mask).to(torch.float32)
    y, x = valid.cumsum(1), valid.cumsum(2)
    y = (y - 0.5) / (y[:, -1:, :] + 1e-6) * 2 * math.pi
    x = (x - 0.5) / (x[:, :, -1:] + 1e-6) * 2 * math.pi
    encoded = torch.cat([sine_features(y, num_feats, temperature), sine_features(x, num_feats, temperature)], -1)
    return encoded.permute(0, 3, 1, 2)
