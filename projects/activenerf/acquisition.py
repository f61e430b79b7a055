"""What a view would teach, before it is taken: by how much its pixels would reduce the variance of the colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

EPS = 1e-9  # added to variances

Acquisition = Literal["uncertainty", "random", "farthest-point"]


def posterior_variance(weights: Tensor, beta2: Tensor) -> tuple[Tensor, Tensor]:
    """Variances of the samples' colours before and after the pixel of their ray has been observed.

    The pixel is a linear function of the samples' independent Gaussians, whose variance is taken as that of the
    observation.

    Args:
        weights, beta2: (N, S) of the samples of N rays.

    Returns:
        prior and posterior, (N, S) in float64.

    Source: section 3.3 of the paper, and the released code.
    """
    prior, share, observed = _update(weights, beta2)
    return prior, prior * (observed / (observed + share))


def information_gain(weights: Tensor, beta2: Tensor) -> Tensor:
    """By how much the variance would fall along each ray, summed over its samples: (N,) in float64.

    Example:
        >>> information_gain(torch.tensor([[1.0], [0.0]]), torch.tensor([[0.5], [0.5]])).round(decimals=6)
        tensor([0.2500, 0.0000], dtype=torch.float64)
    """
    prior, share, observed = _update(weights, beta2)
    return (prior * (share / (observed + share))).sum(-1)  # prior - posterior, without its cancellation


def _update(weights: Tensor, beta2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Prior (N, S), its share in the pixel's variance (N, S), and that variance (N, 1)."""
    weights, beta2 = weights.double(), beta2.double()
    prior = beta2 + EPS
    return prior, weights.square() * prior, (weights.square() * beta2).sum(-1, keepdim=True) + EPS


def best_views(scores: Sequence[float] | Tensor, count: int) -> list[int]:
    """Places of the ``count`` largest scores, the largest first; of equal ones the first.

    Example:
        >>> best_views([39.31, 39.37, 39.27, 39.32, 39.36], 2)
        [1, 4]
    """
    order = torch.as_tensor(scores, dtype=torch.float64).sort(descending=True, stable=True).indices
    return order[:count].tolist()


def random_views(candidates: int, count: int, random: torch.Generator) -> list[int]:
    """Places of ``count`` candidates that are drawn, in the order of the draw."""
    return torch.randperm(candidates, generator=random)[:count].tolist()


def farthest_views(taken: Tensor, candidates: Tensor, count: int) -> list[int]:
    """Candidates that are farthest from all that are taken, one after another.

    Args:
        taken: (A, 3) positions of the cameras that there are.
        candidates: (C, 3) of those that could be.
        count: how many to choose.

    Example:
        >>> line = torch.arange(5.0)[:, None] * torch.tensor([1.0, 0, 0])
        >>> farthest_views(line[:1], line, 2)
        [4, 2]
    """
    distance = torch.cdist(candidates.double(), taken.double()).amin(-1)  # (C,)
    chosen: list[int] = []
    for _ in range(min(count, len(candidates))):
        place = int(distance.argmax())
        chosen.append(place)
        distance = torch.minimum(distance, (candidates - candidates[place]).double().norm(dim=-1))
        distance[chosen] = -1
    return chosen
