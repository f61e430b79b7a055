"""What the cases of native kernels are made of: sizes that a test chooses, numbers, boxes and points."""

import random
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

KINDS = ("empty", "single", "odd", "large")


class Sizes:
    """Sizes of a kind: the least, 1, something odd, the largest, or (a number) random; and numbers on a device."""

    def __init__(self, kind: str | int, device: str = "cpu"):
        self.kind, self.device = kind, device
        self.random = random.Random(kind)
        self.generator = torch.Generator().manual_seed(kind if isinstance(kind, int) else 0)

    def number(self, low: int, high: int) -> int:
        """At least ``low``, at most ``high``."""
        if isinstance(self.kind, int):
            return self.random.randint(low, high)
        return {"empty": low, "single": max(low, 1), "odd": max(low, high // 3 | 1), "large": high}[self.kind]

    def option(self, *values):
        """One of several."""
        return self.random.choice(values) if isinstance(self.kind, int) else values[0]

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0, dtype=torch.float64) -> Tensor:
        numbers = torch.rand(shape, generator=self.generator, dtype=torch.float64) * (high - low) + low
        return numbers.to(self.device, dtype)

    def integers(self, high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=self.generator).to(self.device)

    def tensor(self, *values: float, dtype=torch.float64) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=self.device)


class Case(NamedTuple):
    """``function(*inputs)`` returns a tensor or several; the first ``differentiable`` inputs have gradients."""

    function: Callable
    inputs: tuple[Tensor, ...]
    differentiable: int


def boxes(sizes, count, dtype):
    result = sizes.uniform(count, 5, dtype=torch.float64)
    result = result * sizes.tensor(60, 60, 30, 20, 6) + sizes.tensor(0, 0, 0.5, 0.5, -3)
    if count > 4:
        result[1] = result[0]  # identical
        result[2, 2:] = result[0, 2:] * sizes.tensor(0.5, 0.5, 1)  # nested
        result[2, :2] = result[0, :2]
        result[3, 3] = 0.0  # no area
        result[4, 2] = 1e-3  # thin
    return result.to(dtype)


def cloud_pair(sizes, dtype):
    batch = sizes.number(0, 2)
    points = sizes.uniform(batch, sizes.number(1, 180), 3, low=-1, dtype=dtype)
    return points, sizes.uniform(batch, sizes.number(0, 30), 3, low=-1, dtype=dtype)
