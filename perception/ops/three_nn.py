"""The three nearest neighbours, for interpolation (PointNet++, arXiv:1706.02413)."""

import torch
from torch import Tensor

from perception.ops._points import squared_distances
from perception.ops.backend import native
from perception.ops.registration import FULL, native_kernel

__all__ = ["three_nn"]


def three_nn(targets: Tensor, sources: Tensor) -> tuple[Tensor, Tensor]:
    r"""The three nearest sources of each target, nearest first, of equally near ones the earlier. Not differentiable.

    Args:
        targets: of shape :math:`(B, N, 3)`.
        sources: of shape :math:`(B, M, 3)`.

    Returns:
        Squared distances and indices (int64), both of shape :math:`(B, N, 3)`. With fewer than three sources the
        distance is infinite and the index 0.
    """
    targets, sources = targets.detach(), sources.detach()
    if native("three_nn", targets, sources):
        return torch.ops.perception.three_nn(targets, sources)
    batch, count = targets.shape[0], sources.shape[1]
    distances = targets.new_full((batch, targets.shape[1], 3), torch.inf)
    indices = torch.zeros(distances.shape, dtype=torch.long, device=targets.device)
    for block, distance in squared_distances(targets, sources):
        for rank in range(min(3, count)):
            nearest, which = distance.min(-1, keepdim=True)
            distances[:, block, rank], indices[:, block, rank] = nearest[..., 0], which[..., 0]
            distance = distance.scatter(-1, which, torch.inf)
    return distances, indices


@native_kernel("three_nn(Tensor targets, Tensor sources) -> (Tensor, Tensor)", types=FULL)
def _fake(targets, sources):
    return targets.new_empty(targets.shape), targets.new_empty(targets.shape, dtype=torch.long)
