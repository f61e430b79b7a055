"""Which points lie in which quadrilaterals."""

import torch
from torch import Tensor

__all__ = ["points_in_polygons"]


def points_in_polygons(points: Tensor, polygons: Tensor) -> Tensor:
    r"""Even-odd test of points against quadrilaterals.

    On the border the answer depends on the edge: as in mmcv, a point found to lie on an edge or corner gets the parity
    of the edges tested before.

    Args:
        points: (x, y), of shape :math:`(N, 2)`.
        polygons: corners (x1, y1, ..., x4, y4), of shape :math:`(M, 8)`.

    Returns:
        1 where the point is inside and 0 elsewhere, of shape :math:`(N, M)` and the points' type.
    """
    x, y = points[:, :1], points[:, 1:]
    corners = polygons.reshape(-1, 4, 2)
    odd = torch.zeros(len(points), len(polygons), dtype=torch.bool, device=points.device)
    decided = torch.zeros_like(odd)
    for k in range(4):
        (sx, sy), (tx, ty) = corners[:, k].unbind(1), corners[:, k - 1].unbind(1)
        reached = (y >= torch.minimum(sy, ty)) & (y <= torch.maximum(sy, ty)) & ~decided
        on_corner = ((sx == x) & (sy == y)) | ((tx == x) & (ty == y))
        straddles = (sy < y) != (ty < y)
        crossing = sx + (y - sy) * (tx - sx) / torch.where(straddles, ty - sy, 1)
        decided |= reached & (on_corner | (straddles & (crossing == x)))
        odd ^= reached & ~decided & straddles & (crossing > x)
    return odd.to(points.dtype)
