"""Types in which numbers are computed that half precision would spoil."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Half-precision numbers as float32; float32 and float64 as they are.

    Example:
        >>> [at_least_float32(torch.zeros(1, dtype=t)).dtype for t in (torch.bfloat16, torch.float64)]
        [torch.float32, torch.float64]
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))
