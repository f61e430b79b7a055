"""Features of selected points."""

from torch import Tensor

__all__ = ["gather_points"]


def gather_points(features: Tensor, indices: Tensor) -> Tensor:
    r"""Picks points.

    Args:
        features: of shape :math:`(B, C, N)`.
        indices: integer tensor of shape :math:`(B, M)`.

    Returns:
        Tensor of shape :math:`(B, C, M)`.
    """
    return features.gather(2, indices.long()[:, None].expand(-1, features.shape[1], -1))
