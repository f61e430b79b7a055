"""Sums over the processes of a distributed run."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes, without gradient; the tensor itself where there is one.

    Every process must call it, also one whose batch holds nothing to learn from: the others wait.
    """
    value = value.detach().clone()
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(value)
        value = value / dist.get_world_size()
    return value
