"""What a tracker sees of a cloud: the surroundings of a box, in the box's frame, as a fixed number of points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from perception.geometry import boxes3d
from perception.geometry.points import inside_search_area

SMALLEST = 0.3
"""Metres; thinner sides count as this much where sizes are logarithms or units."""


@dataclass(frozen=True)
class SearchArea:
    """How far around a box a tracker looks.

    Attributes:
        scale: of the box's sides.
        margin: metres beyond, on all sides (2 in P2B and M2-Track); None for a margin of 0.8 times the geometric mean
            of length and width: 2 m for a car, 0.55 m for a pedestrian (our definition of AdaFormer's unified input).
        min_margin: metres, the least of a margin that depends on the size: 0.5 at 10 clouds a second, 1 at two.
    """

    scale: float = 1.25
    margin: float | None = None
    min_margin: float = 0.5

    def of(self, box: Tensor) -> float:
        """The margin around a box (7,), metres."""
        return max(0.8 * float((box[3] * box[4]).sqrt()), self.min_margin) if self.margin is None else self.margin

    def crop(self, points: Tensor, box: Tensor) -> Tensor:
        """Points (M, 3) float32 in the box's frame of those (N, 3) within the area."""
        return _cut(points, box, self.scale, self.of(box))


def inside_box(points: Tensor, box: Tensor, scale: float = 1.25) -> Tensor:
    """Points (M, 3) float32 in the box's frame of those (N, 3) strictly within the box made larger."""
    return _cut(points, box, scale, 0.0)


def _cut(points: Tensor, box: Tensor, scale: float, margin: float) -> Tensor:
    # Far away points are left out first, cheaply: clouds have a hundred thousand.
    reach = float(box[3:6].norm()) * scale / 2 + 2 * margin
    near = points[((points[:, :2] - box[:2].to(points.dtype)).abs() < reach).all(1)].to(box.dtype)
    chosen = near[inside_search_area(near, box, scale, margin)]
    return boxes3d.to_box_frame(chosen, box).float()


def resample(points: Tensor, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Exactly ``count`` of the points (N, 3), at random; some repeat where there are fewer.

    Of two points or less nothing can be told: the result is ``count`` times the origin.

    Returns:
        points (count, 3), and which they were (count,), -1 where there were too few.
    """
    number = len(points)
    if number <= 2:
        return points.new_zeros(count, points.shape[1]), torch.full((count,), -1)
    if number == count:
        return points, torch.arange(count)
    chosen = torch.from_numpy(rng.choice(number, count, replace=count > number))
    return points[chosen], chosen


def size_channels(box: Tensor, count: int) -> Tensor:
    """Logarithms of length, width and height (count, 3) of a box (7,): what SiamCUT tells every point."""
    return box[3:6].clamp(min=SMALLEST).log().float().expand(count, 3)
