"""Vector quantisation: the nearest codeword."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["nearest_codeword"]

CHUNK = 8192  # vectors whose distances to all codewords are held at once


def nearest_codeword(vectors: Tensor, codewords: Tensor) -> Tensor:
    r"""Number of the codeword nearest to each vector, of equally near ones the lowest.

    Args:
        vectors: of shape :math:`(N, C)`.
        codewords: of shape :math:`(K, C)`.

    Returns:
        int64 of shape :math:`(N,)`. There is no native kernel: the distances are a matrix product.
    """
    if not len(vectors):
        return torch.zeros(0, dtype=torch.long, device=vectors.device)
    return torch.cat([torch.cdist(part, codewords).argmin(1) for part in vectors.split(CHUNK)])
