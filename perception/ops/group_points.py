"""Features of groups of points."""

from torch import Tensor

from perception.ops.gather_points import gather_points

__all__ = ["group_points"]


def group_points(features: Tensor, indices: Tensor) -> Tensor:
    r"""Picks groups of points.

    Args:
        features: of shape :math:`(B, C, N)`.
        indices: integer tensor of shape :math:`(B, M, S)`.

    Returns:
        Tensor of shape :math:`(B, C, M, S)`.
    """
    return gather_points(features, indices.flatten(1)).unflatten(2, indices.shape[1:])
