"""The logit, bounded: how a decoder adds a correction to a reference point that lies in (0, 1)."""

from __future__ import annotations

import torch
from torch import Tensor


def inverse_sigmoid(x: Tensor, eps: float) -> Tensor:
    """Logit of ``x`` clamped to [0, 1], with numerator and denominator bounded below.

    Args:
        x: any shape.
        eps: lower bound of ``x`` and ``1 - x``. Weights are trained with one value and predict other boxes with another
            (1e-5 in most DETR-like systems, 1e-3 in Rank-DETR), which is why there is no default.

    Returns:
        ``log(max(x, eps) / max(1 - x, eps))``, same shape.

    Example:
        >>> inverse_sigmoid(torch.tensor([0.0, 0.5, 0.9]), eps=1e-3)
        tensor([-6.9078,  0.0000,  2.1972])
    """
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))
