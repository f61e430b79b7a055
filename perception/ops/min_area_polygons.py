"""Smallest rectangles around point sets."""

import math

import torch
from torch import Tensor

from perception.ops.polygons import convex_hull, rotate

__all__ = ["min_area_polygons"]


def min_area_polygons(points: Tensor) -> Tensor:
    r"""Rectangle of the smallest area that holds all points of a set; one of its sides lies along their convex hull.

    Args:
        points: sets of P points (x1, y1, x2, y2, ...), of shape :math:`(N, 2P)`.

    Returns:
        Corners (x1, y1, ..., x4, y4), of shape :math:`(N, 8)`. In the frame of the rectangle's sides, turned by an
        angle in [0, pi/2], they are (max, min), (min, min), (min, max), (max, max).
    """
    sets = points.detach().double().unflatten(1, (-1, 2))
    if len(sets) == 0:
        return points.new_zeros(0, 8)
    index, _ = convex_hull(sets, torch.ones(sets.shape[:2], dtype=torch.bool, device=points.device))
    hull = sets.gather(1, index[..., None].expand(-1, -1, 2))
    edge = hull.roll(-1, dims=1) - hull
    angle = torch.atan2(edge[..., 1], edge[..., 0])
    quarter = math.pi / 2
    # An edge straight down keeps the angle pi/2 instead of 0, which decides the order of the corners.
    angle = torch.where(angle >= 0, angle % quarter, angle - (angle / quarter - 1).trunc() * quarter)
    turned = rotate(hull[:, None], -angle[:, :, None])  # N edges P 2
    low, high = turned.amin(2), turned.amax(2)
    area = (high - low).prod(-1)
    # Vertices repeated as padding have no edge.
    best = area.masked_fill(edge.square().sum(-1) == 0, torch.inf).argmin(1)
    rows = torch.arange(len(sets), device=points.device)
    (x0, y0), (x1, y1) = low[rows, best].unbind(1), high[rows, best].unbind(1)
    corners = torch.stack([x1, y0, x0, y0, x0, y1, x1, y1], 1).unflatten(1, (4, 2))
    return rotate(corners, angle[rows, best][:, None]).flatten(1).to(points.dtype)
