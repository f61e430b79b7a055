"""Neighbours within a radius (PointNet++, arXiv:1706.02413)."""

import torch
from torch import Tensor

from perception.ops._dtype import round_to_dtype
from perception.ops._points import squared_distances
from perception.ops.backend import native
from perception.ops.registration import FULL, native_kernel

__all__ = ["ball_query"]


def ball_query(points: Tensor, centres: Tensor, min_radius: float, max_radius: float, num_samples: int) -> Tensor:
    r"""The first points, in their given order, whose distance from a centre is in [min_radius, max_radius).

    Points that coincide with the centre always count. Too short a list is filled with its first entry.

    Args:
        points: of shape :math:`(B, N, 3)`.
        centres: of shape :math:`(B, M, 3)`.
        min_radius: inner radius, in the points' unit.
        max_radius: outer radius.
        num_samples: length S of the lists.

    Returns:
        Indices, int64 of shape :math:`(B, M, S)`; -1 throughout where no point is near.
    """
    # Radii are squared in single precision, as the kernels do, so that borderline points fall on the same side.
    low, high = _single_square(min_radius), _single_square(max_radius)
    if native("ball_query", points, centres):
        return torch.ops.perception.ball_query(points, centres, low, high, num_samples)
    batch, count = points.shape[:2]
    found = torch.full((batch, centres.shape[1], num_samples), -1, device=points.device)
    length = min(num_samples, count)
    if length == 0:
        return found
    order = torch.arange(count, device=points.device)
    for block, distance in squared_distances(centres, points):
        near = (distance == 0) | ((distance >= low) & (distance < high))
        first = torch.where(near, order, count).topk(length, largest=False, sorted=True).values
        first = torch.where(first < count, first, first[..., :1])
        first = torch.where(first < count, first, -1)
        found[:, block] = first[..., :1]
        found[:, block, :length] = first
    return found


def _single_square(radius: float) -> float:
    single = round_to_dtype(radius, torch.float32)
    return round_to_dtype(single * single, torch.float32)


@native_kernel(
    "ball_query(Tensor points, Tensor centres, float min_square, float max_square, int num_samples) -> Tensor",
    types=FULL,
)
def _fake(points, centres, min_square, max_square, num_samples):
    return points.new_empty(*centres.shape[:2], num_samples, dtype=torch.long)
