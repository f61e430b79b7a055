"""What a model is that follows objects through point clouds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor


@dataclass
class Target:
    """An object that is followed.

    Attributes:
        box: (7,) float64, the last one, in the frame of the clouds; see :mod:`perception.geometry.boxes3d`.
        first: (N, 3) points of its first cloud, in its first box's frame.
        previous: (N, 3) the last cloud near its box, in the frame of the clouds.
        age: clouds since the first one.
        motion: (2,) how far the box went in the plane from the cloud before last to the last, metres.
    """

    box: Tensor
    first: Tensor
    previous: Tensor
    age: int = 0
    motion: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.float64))


@dataclass(frozen=True)
class Step:
    """What a tracker found in a cloud.

    Attributes:
        box: (7,) float64, in the frame of the clouds.
        score: in [0, 1]; NaN where there is none.
        points_in_search: points of the cloud in the search area.
        status: ``"ok"``; ``"coasting"``: too few points, the last motion is repeated; ``"lost"``: two points or less,
            what the tracker says means nothing.
    """

    box: Tensor
    score: float
    points_in_search: int
    status: str


class CloudTracker(Protocol):
    """A model, as a folder run needs it."""

    def begin(self, points: Tensor, box: Tensor) -> Target:
        """A target whose box (7,) in a cloud (N, 3) is given."""

    def step(self, targets: Sequence[Target], points: Sequence[Tensor]) -> list[Step]:
        """Finds targets in their next clouds, and moves them there; all in one batch.

        Args:
            targets: T of them, which change.
            points: for each its cloud (N, 3), on the CPU.
        """
