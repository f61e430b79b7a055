"""Losses of retrieval, matching, localisation and re-ranking (spec of each: its function)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from perception.layers.precision import at_least_float32

from .reranking import similarity


def symmetric_info_nce(similarities: Tensor, scale: Tensor, label_smoothing: float = 0.1) -> Tensor:
    """Cross-entropy both ways over a batch whose diagonal is right (as in Sample4Geo).

    Args:
        similarities: (B, B); -inf leaves a pair out.
        scale: a scalar that they are multiplied with.
        label_smoothing: share of the label that is spread over all pairs that count.
    """
    logits = similarities * scale
    return (_diagonal_cross_entropy(logits, label_smoothing) + _diagonal_cross_entropy(logits.T, label_smoothing)) / 2


def retrieval_loss(
    ground: Tensor, satellite: Tensor, scale: Tensor, label_smoothing: float = 0.1, excluded: Tensor | None = None
) -> Tensor:
    """Symmetric InfoNCE of descriptors.

    Args:
        ground, satellite: (B, C) of any length; pairs are rows.
        scale: exp of the learnt logit scale.
        label_smoothing: see :func:`symmetric_info_nce`.
        excluded: bool (B, B), pairs that count neither as right nor as wrong (semi-positive tiles).
    """
    similarities = F.normalize(at_least_float32(ground), dim=1) @ F.normalize(at_least_float32(satellite), dim=1).T
    return symmetric_info_nce(_without(similarities, excluded), scale, label_smoothing)


def rerank_loss(
    descriptors: Tensor, maps: Tensor, scale: Tensor, label_smoothing: float = 0.1, excluded: Tensor | None = None
) -> Tensor:
    """Symmetric InfoNCE of the re-ranking similarity (its form is ours: the paper's is not published).

    Args:
        descriptors: (B, C) of panoramas.
        maps: (B, C, H, W) of tiles.
        scale, label_smoothing, excluded: see :func:`retrieval_loss`.
    """
    similarities = similarity(at_least_float32(descriptors), at_least_float32(maps))
    return symmetric_info_nce(_without(similarities, excluded), scale, label_smoothing)


def matching_loss(scores: Tensor, targets: Tensor, temperature: float = 0.1, threshold: float = 1e-2) -> Tensor:
    """InfoNCE between the cells of a tile, with soft labels, over the positives of the whole batch (as in CCVPE).

    Args:
        scores: cosines (B, 1, H, W).
        targets: (B, 1, S, S), S a multiple of H; the largest value within a cell is its label.
        temperature: of the softmax.
        threshold: cells with a larger label are positives.

    Raises:
        ValueError: no cell of the batch is positive, or S is no multiple of H.
    """
    if targets.shape[-1] % scores.shape[-1]:
        raise ValueError(f"targets of {targets.shape[-1]} pixels do not divide into {scores.shape[-1]} cells")
    labels = F.max_pool2d(targets, targets.shape[-1] // scores.shape[-1]).flatten(1)
    log_probabilities = (at_least_float32(scores).flatten(1) / temperature).log_softmax(-1)
    positive = labels > threshold
    weights = torch.where(positive, labels, torch.zeros_like(labels))
    if not positive.any():
        raise ValueError("no target lies within its tile")
    return -(weights * log_probabilities).sum() / weights.sum()


def map_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the heat map with a target that is normalised to sum 1; its floor is the target's entropy.

    Args:
        logits: (B, S * S).
        targets: (B, 1, S, S).
    """
    labels = targets.flatten(1)
    labels = labels / labels.sum(1, keepdim=True)
    return -(labels * at_least_float32(logits).log_softmax(-1)).sum() / len(logits)


def matching_losses(
    scores: Sequence[Tensor], targets: Tensor, levels: Sequence[int], temperature: float, threshold: float
) -> Tensor:
    """Mean of :func:`matching_loss` over ``levels`` (0: the coarsest)."""
    losses = [matching_loss(scores[level], targets, temperature, threshold) for level in levels]
    return torch.stack(losses).mean()


def _without(similarities: Tensor, excluded: Tensor | None) -> Tensor:
    if excluded is None:
        return similarities
    diagonal = torch.eye(len(excluded), dtype=torch.bool, device=excluded.device)
    return similarities.masked_fill(excluded & ~diagonal, -torch.inf)


def _diagonal_cross_entropy(logits: Tensor, label_smoothing: float) -> Tensor:
    log_probabilities = logits.log_softmax(-1)
    right = log_probabilities.diagonal()
    counted = torch.isfinite(logits)
    # Like F.cross_entropy's smoothing, but over the pairs that count alone: it would meet -inf.
    spread = torch.where(counted, log_probabilities, torch.zeros_like(logits)).sum(-1) / counted.sum(-1)
    return -((1 - label_smoothing) * right + label_smoothing * spread).mean()
