"""Rules for types and empty inputs that the operators share."""

import torch
from torch import Tensor


def as_float(x: Tensor) -> Tensor:
    """Half-precision (and integer) tensors as float32, float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def round_to_dtype(value: float, dtype: torch.dtype) -> float:
    """``value`` as it reads after being stored in ``dtype``.

    A threshold such as 0.3 is not representable, so comparing a float32 IoU with the float64 number decides exact ties
    differently from comparing it with the float32 one, which is what compiled mmcv does.
    """
    return torch.tensor(value, dtype=dtype).item()


def zeros_in_graph(source: Tensor, *shape: int) -> Tensor:
    """Zeros of a shape, with a (zero) gradient by ``source``.

    An operator without regions or queries still has to be part of the graph: a training step that meets such a batch
    calls backward as always.
    """
    return source.new_zeros(shape) + source.flatten()[:0].sum()
