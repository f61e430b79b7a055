"""Furthest point sampling (PointNet++, arXiv:1706.02413)."""

import torch
from torch import Tensor

__all__ = ["furthest_point_sample", "furthest_point_sample_with_dist"]


def furthest_point_sample(points: Tensor, num_points: int) -> Tensor:
    r"""Repeatedly takes the point that is furthest from all taken so far, starting with the first.

    Args:
        points: of shape :math:`(B, N, 3)`.
        num_points: how many to take; beyond N, points repeat.

    Returns:
        Indices, int64 of shape :math:`(B, \text{num\_points})`.
    """
    return _sample(points, num_points, lambda last: (points - last).square().sum(-1))


def furthest_point_sample_with_dist(distances: Tensor, num_points: int) -> Tensor:
    r"""The same from a matrix of distances (3DSSD, arXiv:2002.10187).

    Args:
        distances: of shape :math:`(B, N, N)`.
        num_points: how many to take.

    Returns:
        Indices, int64 of shape :math:`(B, \text{num\_points})`.
    """
    return _sample(distances, num_points, lambda last: last[:, 0])


def _sample(rows: Tensor, num_points: int, distance_to) -> Tensor:
    """``distance_to`` turns the row (B, 1, D) of the last point taken into distances (B, N) to it."""
    batch, count, width = rows.shape
    taken = torch.zeros(batch, num_points, dtype=torch.long, device=rows.device)
    nearest = rows.new_full((batch, count), torch.inf)
    for step in range(1, num_points):
        last = rows.gather(1, taken[:, step - 1, None, None].expand(batch, 1, width))
        nearest = torch.minimum(nearest, distance_to(last))
        taken[:, step] = nearest.argmax(1)
    return taken
