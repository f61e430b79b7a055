"""An update by RMSprop of the rows that were touched."""

from __future__ import annotations

import torch
from torch import Tensor

from perception.ops.backend import native
from perception.ops.registration import FULL, native_kernel

__all__ = ["masked_rmsprop_"]


@torch.no_grad()
def masked_rmsprop_(
    parameter: Tensor,
    grad: Tensor,
    square_avg: Tensor,
    mask: Tensor,
    *,
    lr: float,
    beta: float = 0.95,
    eps: float = 1e-8,
) -> None:
    r"""``v = g^2 if v == 0 else b v + (1 - b) g^2; p -= lr * g / (sqrt(v) + eps)`` in marked rows, in place.

    The first update of an entry moves it by exactly ``lr`` (Plenoxels, arXiv:2112.05131).

    Args:
        parameter: of shape :math:`(V, C)`, contiguous.
        grad: of the same shape.
        square_avg: running mean v of squared gradients, 0 at the start; of the same shape.
        mask: rows to update, bool of shape :math:`(V,)`.
        lr: learning rate.
        beta: share of the old value in v.
        eps: in the denominator.
    """
    if native("masked_rmsprop_", parameter, grad, square_avg):
        torch.ops.perception.masked_rmsprop_(parameter, grad, square_avg, mask, lr, beta, eps)
        return
    rows = mask.nonzero()[:, 0]
    pull, old = grad[rows], square_avg[rows]
    square = pull.square()
    mean = torch.where(old == 0, square, beta * old + (1 - beta) * square)
    square_avg[rows] = mean
    parameter[rows] -= lr * pull / (mean.sqrt() + eps)


@native_kernel(
    "masked_rmsprop_(Tensor(a!) parameter, Tensor grad, Tensor(b!) square_avg, Tensor mask, float lr, float beta, "
    "float eps) -> ()",
    types=FULL,
)
def _fake(parameter, grad, square_avg, mask, lr, beta, eps):
    return None
