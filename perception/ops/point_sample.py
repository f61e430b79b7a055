"""Bilinear reading of feature maps at points (PointRend, arXiv:1912.08193)."""

import torch.nn.functional as F
from torch import Tensor

__all__ = ["point_sample"]


def point_sample(features: Tensor, points: Tensor, align_corners: bool = False, padding_mode: str = "zeros") -> Tensor:
    r"""Values of maps at normalised points; differentiable by both.

    Args:
        features: of shape :math:`(B, C, H, W)`.
        points: (x, y) with (0, 0) and (1, 1) at opposite corners of the map, of shape :math:`(B, P, 2)` or
            :math:`(B, P, Q, 2)`.
        align_corners: whether (0, 0) is the centre of the first pixel instead of its outer corner.
        padding_mode: what lies outside: "zeros", "border" or "reflection".

    Returns:
        Tensor of shape :math:`(B, C, P)` or :math:`(B, C, P, Q)`.
    """
    grid = points if points.dim() == 4 else points[:, :, None]
    sampled = F.grid_sample(features, 2 * grid - 1, padding_mode=padding_mode, align_corners=align_corners)
    return sampled if points.dim() == 4 else sampled[..., 0]
