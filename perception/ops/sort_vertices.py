"""Order of the vertices of convex polygons, for differentiable rotated IoU."""

import math

import torch
from torch import Tensor

__all__ = ["sort_vertices"]

# Two rectangles share at most eight vertices; the first one is repeated to close the polygon.
_LENGTH = 9
# The first candidates are corners, which the shoelace formula must not meet as padding.
_FIRST_CROSSING = 8


def sort_vertices(vertices: Tensor, mask: Tensor) -> Tensor:
    r"""Indices of the valid vertices by angle around the origin, closed and padded for the shoelace formula.

    Args:
        vertices: candidates, relative to a point inside the polygon, of shape :math:`(B, N, 24, 2)`: eight corners,
            then sixteen crossings of edges.
        mask: which candidates exist, boolean of shape :math:`(B, N, 24)`.

    Returns:
        Indices, int64 of shape :math:`(B, N, 9)`: the vertices counter-clockwise from the x axis, the first one again,
        then an invalid crossing; polygons of fewer than three vertices are all padding.
    """
    angle = torch.atan2(vertices[..., 1], vertices[..., 0]) % (2 * math.pi)
    order = angle.masked_fill(~mask, torch.inf).argsort(dim=-1, stable=True)[..., :_LENGTH]
    count = mask.sum(-1, keepdim=True).clamp(max=_LENGTH - 1)
    padding = _FIRST_CROSSING + (~mask[..., _FIRST_CROSSING:]).int().argmax(-1, keepdim=True)
    slot = torch.arange(_LENGTH, device=vertices.device)
    closed = torch.where(slot == count, order[..., :1], order)
    return torch.where((slot > count) | (count < 3), padding, closed)
