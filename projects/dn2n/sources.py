"""Which source views a target is rendered from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from projects.dn2n.perturbation import seeded

SAME_PLACE = 1e-6
"""Two cameras are one where poses differ by less than this, places as a share of the cameras' extent."""


@dataclass
class SourceSettings:
    """Settings of the choice of source views."""

    count: int = 10
    """Source views of a target; all there are where they are fewer."""
    spread: int = 2
    """In training, so many more or fewer at random."""
    pools: tuple[int, ...] = (1, 2, 3)
    """In training, sources are drawn from so many times `count` nearest views."""
    pool_weights: tuple[float, ...] = (0.2, 0.45, 0.35)
    """How often each of the pools."""
    largest_pool: int = 20
    """Views of a pool at most."""
    insert_target: float = 0.005
    """In training, how often the target itself is among its sources."""
    released_count: bool = False
    """In evaluation, leave out the farthest view where there are no more than `count`, as IBRNet's loader does."""
    split: Literal["same", "disjoint"] = "same"
    """Whether the two source sets hold the same views, perturbed differently, or have none in common."""
    neighbours: int = 4
    """Nearest cameras of which one is the neighbouring view."""


def nearest(centre: Tensor, centres: Tensor) -> Tensor:
    """Numbers (N,) of cameras by the distance of their places (N, 3) from a place (3,), ties by number."""
    return (centres.double() - centre.double()).norm(dim=1).argsort(dim=0, stable=True)


def is_same_camera(pose: Tensor, poses: Tensor) -> Tensor:
    """Which of the poses (N, 4, 4) are a pose (4, 4): bool (N,)."""
    extent = (poses[:, :3, 3] - poses[:, :3, 3].mean(0)).norm(dim=1).max().clamp(min=1e-6)
    difference = (poses - pose).abs()
    return (difference[:, :3, 3].amax(1) < SAME_PLACE * extent) & (difference[:, :3, :3].flatten(1).amax(1) < 1e-5)


def evaluation_sources(
    pose: Tensor, poses: Tensor, count: int, *, exclude_target: bool = True, released_count: bool = False
) -> Tensor:
    """Numbers (K,) of the K = min(count, N) nearest source views, nearest first.

    Args:
        pose: (4, 4) of the target.
        poses: (N, 4, 4) of the source views.
        count: how many.
        exclude_target: leave out views that are the target's own camera.
        released_count: see :class:`SourceSettings`; K = min(count, N - 1).
    """
    order = nearest(pose[:3, 3], poses[:, :3, 3])
    if exclude_target:
        order = order[~is_same_camera(pose, poses)[order]]
    return order[: min(count, len(poses) - 1) if released_count else count]


def training_sources(target: int, centres: Tensor, settings: SourceSettings, *, seed: int) -> tuple[Tensor, Tensor]:
    """Numbers of the views of the two source sets, drawn for one training step.

    Args:
        target: number of the view that is rendered.
        centres: (N, 3) places of the scene's training views.
        settings: of the choice.
        seed: of the draws.
    """
    random = seeded(seed, 31)
    order = nearest(centres[target], centres)
    others = order[order != target]
    weights = torch.tensor(settings.pool_weights)
    factor = settings.pools[int(torch.multinomial(weights, 1, generator=random))]
    sets = 2 if settings.split == "disjoint" else 1
    pool = others[: sets * min(settings.count * factor, settings.largest_pool)]
    shift = int(torch.randint(-settings.spread, settings.spread + 1, (1,), generator=random))
    wanted = max(1, min(settings.count + shift, len(pool) // sets))
    drawn = pool[torch.randperm(len(pool), generator=random)[: sets * wanted]]
    if float(torch.rand(1, generator=random)) < settings.insert_target:
        drawn[0] = target
    return (drawn[:wanted], drawn[wanted:]) if sets == 2 else (drawn, drawn)


def neighbour_of(target: int, centres: Tensor, settings: SourceSettings, *, seed: int) -> int:
    """Number of a random one of the nearest other views."""
    order = nearest(centres[target], centres)
    near = order[order != target][: settings.neighbours]
    return int(near[torch.randint(len(near), (1,), generator=seeded(seed, 37))])
