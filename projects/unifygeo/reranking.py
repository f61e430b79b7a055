"""The similarity by which the best tiles of a query are ordered anew."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK = 2**25
"""Numbers of a product that are held at a time (128 MiB in float32)."""


def similarity(descriptors: Tensor, maps: Tensor) -> Tensor:
    """Largest cosine of each panorama with any cell of each tile (Q, T).

    Args:
        descriptors: (Q, C), of the decoder's first level, normed.
        maps: (T, C, H, W), of the same.
    """
    queries = F.normalize(descriptors, dim=1)
    cells = F.normalize(maps.flatten(2), dim=1)  # (T, C, HW)
    step = max(1, _CHUNK // max(1, len(queries) * cells.shape[-1]))
    parts = [(queries @ cells[start : start + step]).amax(-1) for start in range(0, len(cells), step)]  # (t, Q) each
    return torch.cat(parts).T if parts else descriptors.new_zeros(len(queries), 0)


def fused_order(similarities: Tensor, reranked: Tensor) -> tuple[Tensor, Tensor]:
    """The candidates of each query in their new order, and the sums by which they are ordered.

    Args:
        similarities: (Q, K) cosines of descriptors, best first.
        reranked: (Q, K) of :func:`similarity`, for the same candidates.

    Returns:
        positions (Q, K) among the candidates, best first, ties as they were; and (Q, K) sums in the *given* order.
    """
    fused = similarities + reranked
    return torch.argsort(fused, dim=1, descending=True, stable=True), fused
