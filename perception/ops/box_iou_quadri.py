"""Overlap of quadrilateral boxes."""

import torch
from torch import Tensor

from perception.ops.box_pairs import extents, overlapping_pairs
from perception.ops.polygons import convex_hull, cross, edge_crossings, polygon_area

__all__ = ["box_iou_quadri"]

_SMALLEST_AREA = 1e-14
_PAIRS_AT_ONCE = 1 << 16


def box_iou_quadri(boxes1: Tensor, boxes2: Tensor, mode: str = "iou", aligned: bool = False) -> Tensor:
    r"""Intersection over union, or over the first box, of two sets of quadrilaterals.

    The intersection is the convex hull of the points in which edges cross and of the corners of one box that lie in the
    other. As in mmcv, a corner counts as inside when its projections on two adjacent sides fall within these sides,
    which is exact for rectangles (rotated boxes given by their corners) and an approximation for other shapes.

    Args:
        boxes1: corners (x1, y1, ..., x4, y4) in order around the box, in pixels, of shape :math:`(N, 8)`.
        boxes2: of shape :math:`(M, 8)`, with M = N if ``aligned``.
        mode: "iou", or "iof" to divide by the area of the box of ``boxes1`` (the foreground).
        aligned: whether to compare boxes of equal index instead of all pairs.

    Returns:
        Tensor of shape :math:`(N,)` if ``aligned``, else :math:`(N, M)`. Boxes of no area have overlap 0.

    Raises:
        ValueError: if ``mode`` is unknown.
    """
    if mode not in ("iou", "iof"):
        raise ValueError(f"mode must be 'iou' or 'iof', got {mode!r}")
    first, second = boxes1.double().reshape(-1, 4, 2), boxes2.double().reshape(-1, 4, 2)
    if aligned:
        return paired_iou_quadri(first, second, mode).to(boxes1.dtype)
    rows, columns = overlapping_pairs(extents(first), extents(second))
    overlap = first.new_zeros(len(first), len(second))
    overlap = overlap.index_put((rows, columns), paired_iou_quadri(first[rows], second[columns], mode))
    return overlap.to(boxes1.dtype)


def paired_iou_quadri(corners1: Tensor, corners2: Tensor, mode: str = "iou") -> Tensor:
    """Overlap (P,) of quadrilaterals (P, 4, 2) of equal index, in their precision (meant for float64)."""
    blocks = zip(corners1.split(_PAIRS_AT_ONCE), corners2.split(_PAIRS_AT_ONCE))
    return torch.cat([_paired_iou(a, b, mode) for a, b in blocks])


def _paired_iou(corners1: Tensor, corners2: Tensor, mode: str) -> Tensor:
    middle = torch.cat([corners1, corners2], 1).mean(1, keepdim=True)
    corners1, corners2 = corners1 - middle, corners2 - middle
    crossings, real = edge_crossings(corners1, corners2)
    points = torch.cat([crossings, corners1, corners2], 1)
    valid = torch.cat([real, _inside(corners1, corners2), _inside(corners2, corners1)], 1)
    hull, _ = convex_hull(points.detach(), valid)
    overlap = polygon_area(points.gather(1, hull[..., None].expand(-1, -1, 2)))
    overlap = torch.where(valid.sum(1) > 2, overlap, 0)

    area1, area2 = _area(corners1), _area(corners2)
    base = area1 + area2 - overlap if mode == "iou" else area1
    empty = (area1 < _SMALLEST_AREA) | (area2 < _SMALLEST_AREA)
    return torch.where(empty, 0, overlap / torch.where(empty, 1, base))


def _inside(points: Tensor, box: Tensor) -> Tensor:
    """Whether points (P, V, 2) project into the two sides of a box (P, 4, 2) that meet in its first corner."""
    inside = torch.ones(points.shape[:2], dtype=torch.bool, device=points.device)
    relative = points - box[:, :1]
    for neighbour in (1, 3):
        side = box[:, neighbour] - box[:, 0]
        along = (relative * side[:, None]).sum(-1)
        inside &= (along >= 0) & (along <= side.square().sum(-1, keepdim=True))
    return inside


def _area(corners: Tensor) -> Tensor:
    relative = corners[:, 1:] - corners[:, :1]
    return cross(relative[:, :-1], relative[:, 1:]).abs().sum(1) / 2
