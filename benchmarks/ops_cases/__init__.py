"""Operators with native kernels at the sizes of the recipes: what the benchmarks of the CPU and of GPUs time.

One module per operator, with the operator's name: its ``timings(large, device)`` are rows of the tables. Every row says
how many bytes it cannot avoid to move and, where that may be the limit, how many operations to make.
"""

import importlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from perception.ops import registration

try:
    import torchvision
except ImportError:  # a machine with torch alone: no peers
    torchvision = None


class Timing(NamedTuple):
    """A contender with what it is compared to."""

    run: Callable[[], object]
    peer: Callable[[], object] | None = None  # torchvision's or torch's operator nearest to it
    bytes: float = 0  # that must be moved
    operations: float = 0  # that must be made
    compiles: bool = True  # whether torch.compile of the reference ends within minutes

    def bound(self, bandwidth: float, arithmetic: float) -> tuple[float, str]:
        """The least time in seconds, given bytes and operations per second, and which of the two sets it."""
        memory, compute = self.bytes / bandwidth, self.operations / arithmetic
        return (memory, "memory") if memory >= compute else (compute, "arithmetic")


def rows(large: bool, device: str) -> Iterator[tuple[str, Timing]]:
    """The rows of every operator that has registered a native kernel."""
    for operator in sorted({kernel.operator for kernel in registration.kernels().values()}):
        torch.manual_seed(0)
        yield from importlib.import_module(f"{__name__}.{operator}").timings(large, device).items()


def boxes(count: int) -> Tensor:
    """Boxes of an aerial image of 1024 px, as many as a crowded one has."""
    return torch.rand(count, 5) * torch.tensor([1024, 1024, 80, 30, 3.1]) + torch.tensor([0, 0, 8, 8, -1.5])


def upright(rotated: Tensor) -> Tensor:
    """Upright boxes (xyxy) of the same centres and sizes."""
    return torch.cat([rotated[:, :2] - rotated[:, 2:4] / 2, rotated[:, :2] + rotated[:, 2:4] / 2], 1)


def clouds(large: bool, device: str) -> tuple[Tensor, Tensor, float]:
    """Points (B, 16384, 3), the first 1024 of each cloud, and the operations of all distances between them."""
    batch = 32 if large else 1
    points = torch.rand(batch, 16384, 3, device=device) * 4
    # Differences, squares, sums and a comparison.
    return points, points[:, :1024].contiguous(), 8.0 * batch * 16384 * 1024


def with_backward(function: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], object]:
    """The function and its gradient by the inputs."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    pull = torch.ones_like(function(*leaves))
    return lambda: torch.autograd.grad(function(*leaves), leaves, pull)
