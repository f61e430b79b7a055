"""Eight-bit numbers with one scale for a tensor, as torch's ``qint8`` with the released choice of parameters."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

STEPS_PER_STD = 15
LOWEST, HIGHEST = -128, 127


class Int8Tensor(NamedTuple):
    """Quantised numbers: ``(values - zero_point) * scale``."""

    values: Tensor  # int8, any shape
    scale: float
    zero_point: int

    def dequantize(self) -> Tensor:
        """The numbers as float32."""
        return (self.values.float() - self.zero_point) * self.scale


def quantize_int8(numbers: Tensor, like: tuple[float, int] | None = None) -> Int8Tensor:
    """Quantise float32 numbers of any shape to 8 bits.

    ``scale`` is a fifteenth of the (unbiased) standard deviation and ``zero_point`` the rounded *mean value*, as
    released: it is not divided by the scale, so it seldom centres the range, and values beyond about 8.5 standard
    deviations are clipped. Without a spread (no number, one number, equal numbers) the scale is 1 / 127 of the largest
    magnitude, or 1.

    Args:
        numbers: float32.
        like: scale and zero point to use. Numbers that were quantised with them before give the same integers again.
    """
    scale, zero_point = _parameters(numbers) if like is None else like
    steps = (numbers / scale).round() + zero_point  # halves to even
    return Int8Tensor(steps.clamp(LOWEST, HIGHEST).to(torch.int8), scale, zero_point)


def _parameters(numbers: Tensor) -> tuple[float, int]:
    spread = float(numbers.std()) if numbers.numel() > 1 else 0.0
    if spread > 0:
        scale, zero_point = spread / STEPS_PER_STD, round(float(numbers.mean()))
    else:
        scale = float(numbers.abs().max()) / HIGHEST if numbers.numel() else 0.0
        scale, zero_point = scale or 1.0, 0
    # The stored scale is a float32, so that decoding multiplies by the very same number.
    scale = float(torch.tensor(scale, dtype=torch.float32))
    return scale, max(LOWEST, min(HIGHEST, zero_point))
