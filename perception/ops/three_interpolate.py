"""Interpolation from three neighbours (PointNet++, arXiv:1706.02413)."""

from torch import Tensor

__all__ = ["three_interpolate"]


def three_interpolate(features: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    r"""Weighted sum of the features of three points.

    Args:
        features: of shape :math:`(B, C, M)`.
        indices: integer tensor of shape :math:`(B, N, 3)`.
        weights: of shape :math:`(B, N, 3)`.

    Returns:
        Tensor of shape :math:`(B, C, N)`.
    """
    batch, channels, _ = features.shape
    picked = features.gather(2, indices.long().reshape(batch, 1, -1).expand(-1, channels, -1))
    return (picked.unflatten(2, indices.shape[1:]) * weights[:, None]).sum(-1)
