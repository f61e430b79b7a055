"""Clouds of points around boxes, as trackers see them.

Points are (..., N, 3) in metres; boxes are those of :mod:`~perception.geometry.boxes3d` in the same frame.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import boxes3d


def inside_search_area(points: Tensor, box: Tensor, scale: float = 1.0, margin: Tensor | float = 0.0) -> Tensor:
    """Points strictly within a box made larger: bool (..., N).

    Half a side becomes ``scale / 2 * side + margin``.

    Args:
        points: (..., N, 3).
        box: (..., 7+).
        scale: of the sides.
        margin: in metres, a number or (..., 1) or (..., 3).

    Example:
        >>> box = torch.tensor([0.0, 0, 0, 4, 2, 2, 0])
        >>> inside_search_area(torch.tensor([[2.0, 0, 0], [2.4, 0, 0], [0, 1.3, 0]]), box, scale=1.25)
        tensor([ True,  True, False])
    """
    half = box[..., 3:6] * (scale / 2) + margin
    return (boxes3d.to_box_frame(points, box).abs() < half[..., None, :]).all(-1)


def box_cloud(points: Tensor, box: Tensor) -> Tensor:
    """Distances (..., N, 9) in metres of points to a box's centre and its eight corners, in the order of `corners`.

    A description of where a point lies that also holds the box's size (Zheng et al., "Box-Aware Feature Enhancement
    for Single Object Tracking on Point Clouds", 2021).
    """
    marks = torch.cat([box[..., None, :3], boxes3d.corners(box)], -2)  # (..., 9, 3)
    return torch.cdist(points, marks, compute_mode="donot_use_mm_for_euclid_dist")


def move_with_box(points: Tensor, box: Tensor, offset: Tensor) -> Tensor:
    """Points (..., N, 3) that move with a box (..., 7+) by (dx, dy, dz, dyaw) (..., 4), given in its own frame."""
    return boxes3d.from_box_frame(boxes3d.to_box_frame(points, box), boxes3d.moved_by(box, offset))
