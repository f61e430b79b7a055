"""Furthest point sampling (PointNet++, arXiv:1706.02413)."""

from collections.abc import Callable

import torch
from torch import Tensor

from perception.ops.backend import native
from perception.ops.registration import FULL, native_kernel

__all__ = ["furthest_point_sample", "furthest_point_sample_with_dist"]


# Squared norm up to which a point counts as padding in pointnet2_ops.
_NEAR_ORIGIN = 1e-3


def furthest_point_sample(points: Tensor, num_points: int, skip_near_origin: bool = False) -> Tensor:
    r"""Repeatedly takes the point that is furthest from all taken so far, starting with the first.

    Of equally far points the one of lowest index is taken.

    Args:
        points: of shape :math:`(B, N, 3)`.
        num_points: how many to take; beyond N, points repeat.
        skip_near_origin: never take points whose squared norm is at most 1e-3 (except that the first taken is always
            point 0), as the kernels of pointnet2_ops do, in which clouds are padded with zeros.

    Returns:
        Indices, int64 of shape :math:`(B, \text{num\_points})`.

    Example:
        >>> points = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [5, 0, 0], [2, 0, 0]]])
        >>> furthest_point_sample(points, 3)
        tensor([[0, 2, 3]])
    """
    if native("furthest_point_sample", points):
        return torch.ops.perception.furthest_point_sample(points, num_points, skip_near_origin)
    skipped = points.square().sum(-1) <= _NEAR_ORIGIN if skip_near_origin else None
    return _sample(points, num_points, lambda last: (points - last).square().sum(-1), skipped)


def furthest_point_sample_with_dist(distances: Tensor, num_points: int) -> Tensor:
    r"""The same from a matrix of distances (3DSSD, arXiv:2002.10187).

    Args:
        distances: of shape :math:`(B, N, N)`.
        num_points: how many to take.

    Returns:
        Indices, int64 of shape :math:`(B, \text{num\_points})`.
    """
    return _sample(distances, num_points, lambda last: last[:, 0])


def _sample(
    rows: Tensor, num_points: int, distance_to: Callable[[Tensor], Tensor], skipped: Tensor | None = None
) -> Tensor:
    """``distance_to`` turns the row (B, 1, D) of the last point taken into distances (B, N) to it."""
    batch, count, width = rows.shape
    taken = torch.zeros(batch, num_points, dtype=torch.long, device=rows.device)
    nearest = rows.new_full((batch, count), torch.inf)
    if skipped is not None:
        nearest = nearest.masked_fill(skipped, -1)
    for step in range(1, num_points):
        last = rows.gather(1, taken[:, step - 1, None, None].expand(batch, 1, width))
        nearest = torch.minimum(nearest, distance_to(last))
        taken[:, step] = nearest.argmax(1)
    return taken


@native_kernel("furthest_point_sample(Tensor points, int num_points, bool skip_near_origin) -> Tensor", types=FULL)
def _fake(points, num_points, skip_near_origin):
    return points.new_empty(points.shape[0], num_points, dtype=torch.long)
