"""Overlap of the convex hulls of point sets with convex polygons."""

import torch
from torch import Tensor

from perception.ops.polygons import convex_hull, cross, edge_crossings, polygon_area

__all__ = ["convex_giou", "convex_iou"]

_PAIRS_AT_ONCE = 1 << 15


def convex_iou(points: Tensor, polygons: Tensor) -> Tensor:
    r"""IoU of the hull of each point set with each polygon (Oriented RepPoints, arXiv:2105.11111).

    Args:
        points: sets of P points (x1, y1, x2, y2, ...), of shape :math:`(N, 2P)`.
        polygons: convex quadrilaterals (x1, y1, ..., x4, y4), of shape :math:`(M, 8)`.

    Returns:
        Tensor of shape :math:`(N, M)`; 0 where neither has an area.
    """
    sets, corners = points.double().unflatten(1, (-1, 2)), polygons.double().unflatten(1, (-1, 2))
    rows = torch.arange(len(sets), device=points.device).repeat_interleave(len(corners))
    columns = torch.arange(len(corners), device=points.device).repeat(len(sets))
    blocks = zip(rows.split(_PAIRS_AT_ONCE), columns.split(_PAIRS_AT_ONCE))
    iou = [_ratio(*_overlap(_hull(sets[r]), _oriented(corners[c]))) for r, c in blocks]
    return torch.cat(iou).reshape(len(sets), len(corners)).to(points.dtype)


def convex_giou(points: Tensor, polygons: Tensor) -> Tensor:
    r"""Generalised IoU of the hull of each point set with the polygon of equal index.

    Differentiable by the points (those inside their hull have gradient zero, and of equal ones all but the first).

    Args:
        points: sets of P points (x1, y1, x2, y2, ...), of shape :math:`(N, 2P)`.
        polygons: convex quadrilaterals (x1, y1, ..., x4, y4), of shape :math:`(N, 8)`.

    Returns:
        Tensor of shape :math:`(N,)`.
    """
    sets, corners = points.double().unflatten(1, (-1, 2)), polygons.double().unflatten(1, (-1, 2))
    hull = _hull(sets)
    overlap, union = _overlap(hull, _oriented(corners))
    enclosing = polygon_area(_hull(torch.cat([hull, corners], 1)))
    return (overlap / union - (enclosing - union) / enclosing).to(points.dtype)


def _overlap(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Areas (P,) of intersection and union of counter-clockwise convex polygons (P, V, 2) and (P, W, 2)."""
    crossings, real = edge_crossings(first, second)
    points = torch.cat([crossings, first, second], 1)
    valid = torch.cat([real, _inside(first, second), _inside(second, first)], 1)
    areas = polygon_area(first), polygon_area(second)
    real = (valid.sum(1) > 2) & (areas[0] > 0) & (areas[1] > 0)  # no edge of a single point has an outer side
    overlap = torch.where(real, polygon_area(_hull(points, valid)), 0)
    return overlap, areas[0] + areas[1] - overlap


def _ratio(overlap: Tensor, union: Tensor) -> Tensor:
    return torch.where(union > 0, overlap / union, 0)


def _hull(points: Tensor, valid: Tensor | None = None) -> Tensor:
    """Hulls of point sets (P, N, 2), padded to N vertices with their first one."""
    places = points.detach()
    exist = torch.ones_like(places[..., 0], dtype=torch.bool) if valid is None else valid
    index, _ = convex_hull(places, exist)
    if valid is None:  # of equal points the first, as in mmcv
        equal = (places[:, :, None] == places[:, None]).all(-1)
        index = equal.int().argmax(2).gather(1, index)
    return points.gather(1, index[..., None].expand(-1, -1, 2))


def _oriented(polygon: Tensor) -> Tensor:
    return torch.where(polygon_area(polygon)[:, None, None] < 0, polygon.flip(1), polygon)


def _inside(points: Tensor, polygon: Tensor) -> Tensor:
    edge = polygon.roll(-1, dims=1) - polygon
    return (cross(edge[:, None], points[:, :, None] - polygon[:, None]) >= 0).all(-1)
