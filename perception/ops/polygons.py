"""Plane geometry on batches of small convex polygons. Everything is computed in float64: the areas of thin boxes far
from the origin are differences of large numbers."""

import torch
from torch import Tensor


def rotated_box_corners(boxes: Tensor) -> Tensor:
    """Corners (N, 4, 2) of boxes (N, 5) as (cx, cy, w, h, angle), in order around the box.

    A positive angle turns the x axis towards the y axis: clockwise as seen in an image, whose y axis points down.
    """
    centre, size, angle = boxes[:, :2], boxes[:, 2:4], boxes[:, 4]
    signs = boxes.new_tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    return centre[:, None] + rotate(signs * size[:, None] / 2, angle[:, None])


def rotate(points: Tensor, angle: Tensor) -> Tensor:
    """Points (..., 2) turned by an angle (...) from the x axis towards the y axis."""
    cos, sin = angle.cos(), angle.sin()
    x, y = points.unbind(-1)
    return torch.stack([x * cos - y * sin, x * sin + y * cos], -1)


def area_within_rectangle(polygon: Tensor, half_size: Tensor) -> Tensor:
    """Area (P,) that polygons (P, V, 2) share with rectangles of half size (P, 2) centred at the origin.

    By Green's theorem that is the integral, once around the polygon, of x dy with x and y clamped to the rectangle.
    Each edge contributes a closed form, continuous in all its arguments, so that no rounding can put a vertex on the
    wrong side of an edge; that makes coincident and touching edges harmless.
    """
    start, end = polygon, polygon.roll(-1, dims=1)
    half_width, half_height = half_size[:, None, 0], half_size[:, None, 1]
    x0, y0, dx, dy = start[..., 0], start[..., 1], *(end - start).unbind(-1)

    y_low = _clamp(y0, half_height)
    y_high = _clamp(y0 + dy, half_height)
    flat = dy.abs() <= _tiny(half_height)
    slope = torch.where(flat, 0, dx / torch.where(flat, 1, dy))
    xa, xb = x0 + slope * (y_low - y0), x0 + slope * (y_high - y0)

    # Mean of clamp(x) while x runs evenly from xa to xb: the shares of the way left of, right of and in the rectangle.
    left, right = torch.minimum(xa, xb), torch.maximum(xa, xb)
    run = right - left
    upright = run <= _tiny(half_width)
    safe_run = torch.where(upright, 1, run)
    below = torch.where(upright, 0, torch.minimum((-half_width - left).clamp(min=0), run) / safe_run)
    above = torch.where(upright, 0, torch.minimum((right - half_width).clamp(min=0), run) / safe_run)
    middle = (_clamp(left, half_width) + _clamp(right, half_width)) / 2
    mean = (above - below) * half_width + (1 - above - below) * middle
    return ((y_high - y_low) * mean).sum(1).abs()


def edge_crossings(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Points (P, V W, 2) in which the edges of polygons (P, V, 2) and (P, W, 2) cross, and a mask of the real ones."""
    step1, step2 = first.roll(-1, dims=1) - first, second.roll(-1, dims=1) - second
    step1, step2 = step1[:, :, None], step2[:, None]
    det = cross(step2, step1)
    parallel = det.abs() <= 1e-14
    det = torch.where(parallel, 1, det)
    gap = second[:, None] - first[:, :, None]
    t1, t2 = cross(step2, gap) / det, cross(step1, gap) / det
    real = ~parallel & (t1 >= 0) & (t1 <= 1) & (t2 >= 0) & (t2 <= 1)
    points = first[:, :, None] + step1 * t1[..., None]
    return points.flatten(1, 2), real.flatten(1)


def convex_hull(points: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Convex hulls of sets of points (P, N, 2), of which a mask (P, N) says which exist: Graham's scan for all at once.

    Returns:
        Indices (P, N) of the hull's vertices in counter-clockwise order (x right, y up) starting at the lowest point,
        padded with that point, and their number (P,).
    """
    sets, count, _ = points.shape
    rows = torch.arange(sets, device=points.device)
    # The pivot is the lowest point, of several the leftmost.
    y = points[..., 1].masked_fill(~valid, torch.inf)
    x = points[..., 0].masked_fill(y > y.amin(1, keepdim=True), torch.inf)
    spoke = points - points[rows, x.argmin(1)][:, None]
    distance = spoke.square().sum(-1)
    angle = torch.atan2(spoke[..., 1], spoke[..., 0]).masked_fill(distance == 0, -1).masked_fill(~valid, torch.inf)
    order = distance.argsort(1)
    order = order.gather(1, angle.gather(1, order).argsort(dim=1, stable=True))

    spoke = spoke.gather(1, order[..., None].expand(-1, -1, 2))
    usable = (valid & (distance > 0)).gather(1, order)
    stack = torch.zeros_like(order)  # the pivot is first in the order
    size = valid.any(1).long()
    for step in range(1, int(valid.sum(1).max()) if sets else 0):
        active = usable[:, step].nonzero()[:, 0]
        unsettled = active[size[active] > 1]
        while len(unsettled):
            top = size[unsettled]
            last, before = spoke[unsettled, stack[unsettled, top - 1]], spoke[unsettled, stack[unsettled, top - 2]]
            inner = cross(spoke[unsettled, step] - before, last - before) >= 0
            unsettled = unsettled[inner]
            size[unsettled] -= 1
            unsettled = unsettled[size[unsettled] > 1]
        stack[active, size[active]] = step
        size[active] += 1
    slots = torch.arange(count, device=points.device)
    return order.gather(1, torch.where(slots < size[:, None], stack, 0)), size


def polygon_area(polygon: Tensor) -> Tensor:
    """Signed area (...) of polygons (..., V, 2), positive where the vertices turn from x towards y."""
    relative = polygon - polygon[..., :1, :]
    return cross(relative, relative.roll(-1, dims=-2)).sum(-1) / 2


def cross(a: Tensor, b: Tensor) -> Tensor:
    """z component of the cross product of plane vectors (..., 2)."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _clamp(x: Tensor, bound: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(x, -bound), bound)


def _tiny(scale: Tensor) -> Tensor:
    return torch.finfo(scale.dtype).eps * scale
