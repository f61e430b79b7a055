"""VIGOR's numbers: retrieval, metric localisation, and both at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .retrieval import recalls

THRESHOLDS = (1, 3, 5, 10, 20)
"""Metres."""


@dataclass(frozen=True)
class Retrieved:
    """How Q queries found their tiles.

    Attributes:
        ranks: (Q,) of the positive tile by the strict rule: ties do not count against it.
        hits: bool (Q,): no tile but the semi-positives is strictly more similar than the positive.
        gallery_size: number of tiles.
    """

    ranks: Tensor
    hits: Tensor
    gallery_size: int


def reranked(before: Retrieved, candidates: Tensor, fused: Tensor, wanted: Tensor, ignored: Tensor) -> Retrieved:
    """Ranks after the best tiles of each query were ordered anew; beyond those nothing changes.

    Args:
        before: ranks before.
        candidates: (Q, K) tile numbers, best first.
        fused: (Q, K) the similarity they are ordered by now.
        wanted: (Q,) the positive tiles.
        ignored: (Q, S) the semi-positive tiles.
    """
    own = candidates == wanted[:, None]
    inside = own.any(1)
    value = torch.where(own, fused, torch.full_like(fused, -torch.inf)).amax(1, keepdim=True)
    above = fused > value
    ranks = torch.where(inside, above.sum(1) + 1, before.ranks)
    semi = (candidates[:, :, None] == ignored[:, None, :]).any(-1)
    hits = torch.where(inside, ~(above & ~semi).any(1), before.hits)
    return Retrieved(ranks, hits, before.gallery_size)


def retrieval_numbers(retrieved: Retrieved) -> dict[str, float]:
    """Recalls and hit rate in percent."""
    numbers = recalls(retrieved.ranks, retrieved.gallery_size)
    return numbers | {"hit_rate": 100 * retrieved.hits.double().mean().item()}


def localization_numbers(errors: np.ndarray, thresholds: Sequence[float] = THRESHOLDS) -> dict[str, float]:
    """Of errors in metres on the positive tile: mean, median, and percentage strictly below each threshold."""
    numbers = {"mean_m": float(errors.mean()), "median_m": float(np.median(errors))}
    return numbers | {f"L@{t:g}m": 100 * float((errors < t).mean()) for t in thresholds}


def joint_numbers(ranks: np.ndarray, errors: np.ndarray, thresholds: Sequence[float] = THRESHOLDS) -> dict[str, float]:
    """Percentage of all queries whose positive tile came first *and* whose error on it is below each threshold."""
    return {f"LF@{t:g}m": 100 * float(((ranks == 1) & (errors < t)).mean()) for t in thresholds}
