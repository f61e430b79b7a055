"""Chamfer distance of point sets."""

import torch
from torch import Tensor

from perception.ops._points import squared_distances

__all__ = ["chamfer_distance", "squared_distance_to"]


def chamfer_distance(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Squared distance of each point of two sets to the nearest point of the other set.

    Args:
        first: of shape :math:`(B, N, D)`.
        second: of shape :math:`(B, M, D)`.

    Returns:
        Squared distances of the first set's points, of shape :math:`(B, N)`, and of the second's, :math:`(B, M)`, both
        differentiable; then the indices (int64) of the nearest points, of the same shapes.
    """
    nearest_second, nearest_first = _nearest(first, second), _nearest(second, first)
    return (
        squared_distance_to(first, second, nearest_second),
        squared_distance_to(second, first, nearest_first),
        nearest_second,
        nearest_first,
    )


def squared_distance_to(points: Tensor, others: Tensor, index: Tensor) -> Tensor:
    """Squared distances (B, N) of points (B, N, D) to the ones with the given indices (B, N) among others (B, M, D)."""
    partner = others.gather(1, index.long()[..., None].expand(-1, -1, others.shape[2]))
    return (points - partner).square().sum(-1)


def _nearest(points: Tensor, others: Tensor) -> Tensor:
    with torch.no_grad():
        blocks = [distance.argmin(-1) for _, distance in squared_distances(points, others)]
    return torch.cat(blocks, 1) if blocks else points.new_zeros(points.shape[:2], dtype=torch.long)
