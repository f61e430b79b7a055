"""SuperGlobal (ICCV 2023): pooling variants of one network's maps, and re-ranking by descriptors alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .retrieval import Ranking


def relu_p(features: Tensor, floor: float = 0.014) -> Tensor:
    """Activations of any shape with a floor above zero."""
    return features.clamp(min=floor)


def regional_gem(features: Tensor, p: float = 2.5, size: int = 5) -> Tensor:
    """Maps (B, C, H, W) averaged with their power mean over windows of ``size``; negative numbers give NaN."""
    reach = size // 2
    padded = F.pad(features / size ** (2 / p), [reach] * 4, mode="reflect")
    return 0.5 * F.lp_pool2d(padded, p, size, stride=1) + 0.5 * features


def gem_p(features: Tensor, p: float = 4.6, eps: float = 1e-8) -> Tensor:
    """Generalised mean of maps: (B, C, H, W) to (B, C)."""
    return features.clamp(min=eps).pow(p).mean((-2, -1)).pow(1 / p)


def scale_gem(descriptors: Sequence[Tensor], p: float | None = None) -> Tensor:
    """One descriptor (B, C) from those of an image at several scales.

    Args:
        descriptors: (B, C) of each scale; of unit length for a finite ``p``.
        p: exponent of the mean above the image's smallest entry; None takes the largest entries of the descriptors at
            unit length (p to infinity).
    """
    stacked = torch.stack(list(descriptors))  # (S, B, C)
    if p is None:
        return F.normalize(stacked, dim=-1).amax(0)
    low = stacked.amin((0, 2), keepdim=True)
    return (stacked - low).pow(p).mean(0).pow(1 / p) + low[0]


def rerank(queries: Tensor, gallery: Tensor, ranking: Ranking, neighbours: int = 9, beta: float = 0.15) -> Ranking:
    """Orders the candidates of each query anew, by descriptors that their neighbours refined.

    Args:
        queries: (Q, C) of unit length.
        gallery: (R, C) of unit length, also memory-mapped.
        ranking: the M candidates of each query; 400 in the paper, 100 for VIGOR's overlapping tiles.
        neighbours: K, of each candidate among the candidates.
        beta: their weight, multiplied with their similarity.
    """
    kept = min(neighbours + 1, ranking.candidates.shape[1])
    candidates, scores = [], []
    for query, numbers in zip(queries, ranking.candidates):
        vectors = torch.as_tensor(gallery[numbers.cpu()]).to(queries)  # (M, C)
        similarities, nearest = (vectors @ vectors.T).topk(kept, dim=1)
        weights = beta * similarities
        weights[:, 0] = 1.0  # itself
        refined = (weights[..., None] * vectors[nearest]).sum(1) / weights.sum(1, keepdim=True)
        first = refined @ query
        order = torch.argsort(first, descending=True, stable=True)
        expanded = refined[order[:kept]].amax(0)
        final = (first + refined @ expanded) / 2
        order = torch.argsort(final, descending=True, stable=True)
        candidates.append(numbers[order])
        scores.append(final[order])
    return Ranking(torch.stack(candidates), torch.stack(scores))
