"""Nearest neighbours."""

import torch
from torch import Tensor

from perception.ops._points import squared_distances
from perception.ops.backend import native
from perception.ops.registration import FULL, native_kernel

__all__ = ["knn"]


def knn(k: int, points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    r"""The k nearest points of each centre, nearest first. Not differentiable.

    Args:
        k: number of neighbours.
        points: of shape :math:`(B, N, 3)`.
        centres: of shape :math:`(B, M, 3)`.

    Returns:
        Squared distances and indices (int64), both of shape :math:`(B, M, k)`. Beyond N the distance is infinite and
        the index 0.
    """
    points, centres = points.detach(), centres.detach()
    if native("knn", points, centres):
        return torch.ops.perception.knn(points, centres, k)
    batch, count = points.shape[:2]
    distances = points.new_full((batch, centres.shape[1], k), torch.inf)
    indices = torch.zeros(distances.shape, dtype=torch.long, device=points.device)
    number = min(k, count)
    for block, distance in squared_distances(centres, points):
        nearest = distance.topk(number, largest=False, sorted=True)
        distances[:, block, :number], indices[:, block, :number] = nearest.values, nearest.indices
    return distances, indices


@native_kernel("knn(Tensor points, Tensor centres, int k) -> (Tensor, Tensor)", types=FULL)
def _fake(points, centres, k):
    shape = (*centres.shape[:2], k)
    return points.new_empty(shape), points.new_empty(shape, dtype=torch.long)
