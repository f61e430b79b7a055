"""Quadrilaterals and point sets: overlap, suppression, hulls, membership."""

import math

import pytest
import torch
from shapely import LineString, MultiPoint, Point, Polygon

from perception.ops.box_iou_quadri import box_iou_quadri
from perception.ops.box_iou_rotated import box_iou_rotated
from perception.ops.convex_iou import convex_giou, convex_iou
from perception.ops.min_area_polygons import min_area_polygons
from perception.ops.nms_quadri import nms_quadri
from perception.ops.nms_rotated import nms_rotated
from perception.ops.points_in_polygons import points_in_polygons
from perception.ops.polygons import convex_hull, rotated_box_corners
from perception.ops.sort_vertices import sort_vertices
from tests.ops.definitions import some_rotated_boxes, strided


def rectangles(count, seed, size=100, dtype=torch.float32):
    rotated, scores = some_rotated_boxes(count, size, seed, dtype)
    return rotated, rotated_box_corners(rotated).flatten(1), scores


def point_sets(count, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    middle = torch.rand(count, 1, 2, generator=generator, dtype=dtype) * 60 + 20
    return (middle + torch.randn(count, 9, 2, generator=generator, dtype=dtype) * 12).flatten(1)


def as_polygon(corners):
    return Polygon(corners.reshape(-1, 2).tolist())


def as_hull(points):
    return MultiPoint(points.reshape(-1, 2).tolist()).convex_hull


@pytest.mark.parametrize("mode", ["iou", "iof"])
def test_quadrilaterals_that_are_rotated_boxes(mode):
    (first, quads1, _), (second, quads2, _) = rectangles(40, 1), rectangles(40, 2)
    expected = box_iou_rotated(first, second, mode)
    torch.testing.assert_close(box_iou_quadri(quads1, quads2, mode), expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(box_iou_quadri(strided(quads1), strided(quads2), mode), expected, atol=2e-5, rtol=1e-4)
    aligned = box_iou_quadri(quads1, quads2, mode, aligned=True)
    torch.testing.assert_close(aligned, expected.diag(), atol=2e-5, rtol=1e-4)


def test_quadrilaterals_that_coincide_or_have_no_area():
    _, quads, _ = rectangles(20, 3, dtype=torch.float64)
    torch.testing.assert_close(box_iou_quadri(quads, quads, aligned=True), torch.ones(20, dtype=torch.float64))
    turned = quads.reshape(20, 4, 2).roll(1, 1).flatten(1)
    torch.testing.assert_close(box_iou_quadri(quads, turned, aligned=True), torch.ones(20, dtype=torch.float64))
    flat = quads[:, [0, 1, 0, 1, 4, 5, 4, 5]]
    assert (box_iou_quadri(flat, quads) == 0).all()
    assert box_iou_quadri(quads[:0], quads).shape == (0, 20)
    with pytest.raises(ValueError, match="giou"):
        box_iou_quadri(quads, quads, "giou")


def overlap_by_mmcv_rule(first, second):
    """Hull of the crossings of edges and of the corners that project into the other's first and last side."""
    a, b = first.reshape(4, 2).tolist(), second.reshape(4, 2).tolist()
    points = []
    for i in range(4):
        for j in range(4):
            crossing = LineString([a[i - 1], a[i]]).intersection(LineString([b[j - 1], b[j]]))
            points += [crossing.coords[0]] if crossing.geom_type == "Point" and not crossing.is_empty else []
    for corners, quad in ((a, b), (b, a)):
        for x, y in corners:
            inside = True
            for neighbour in (1, 3):
                side = quad[neighbour][0] - quad[0][0], quad[neighbour][1] - quad[0][1]
                along = (x - quad[0][0]) * side[0] + (y - quad[0][1]) * side[1]
                inside = inside and 0 <= along <= side[0] ** 2 + side[1] ** 2
            points += [(x, y)] if inside else []
    return MultiPoint(points).convex_hull.area if len(points) > 2 else 0.0


def test_irregular_quadrilaterals():
    """What mmcv computes for them, which is not quite their intersection."""
    generator = torch.Generator().manual_seed(0)
    quads = torch.tensor([[0.0, 0, 20, 0, 20, 20, 0, 20]], dtype=torch.float64)
    quads = quads + torch.rand(40, 8, generator=generator, dtype=torch.float64) * 9
    quads = quads + torch.rand(40, 1, 2, generator=generator, dtype=torch.float64).repeat(1, 1, 4).reshape(40, 8) * 15
    iou = box_iou_quadri(quads[:20], quads[20:], aligned=True)
    exact = 0
    for k, (a, b) in enumerate(zip(quads[:20], quads[20:])):
        overlap = overlap_by_mmcv_rule(a, b)
        assert iou[k].item() == pytest.approx(overlap / (as_polygon(a).area + as_polygon(b).area - overlap), abs=1e-9)
        exact += overlap == pytest.approx(as_polygon(a).intersection(as_polygon(b)).area)
    assert 0 < exact < 20


def test_nms_quadri():
    rotated, quads, scores = rectangles(120, 4)
    labels = torch.arange(120) % 3
    assert nms_quadri(quads, scores, 0.3).tolist() == nms_rotated(rotated, scores, 0.3).tolist()
    assert nms_quadri(quads, scores, 0.1, labels).tolist() == nms_rotated(rotated, scores, 0.1, labels).tolist()
    assert nms_quadri(quads[:0], scores[:0], 0.3).shape == (0,)


def test_convex_hull():
    points = point_sets(30, 5).reshape(30, 9, 2)
    points[0, 1:] = points[0, 0]  # all the same
    points[1] = torch.arange(9.0)[:, None] * torch.tensor([1.0, 2.0])  # on a line
    points[2, 5:] = points[2, :4].clone()  # repeated
    valid = torch.rand(30, 9) > 0.2
    valid[:, :3] = True
    index, size = convex_hull(points, valid)
    for k in range(30):
        hull = points[k, index[k, : size[k]]]
        expected = MultiPoint(points[k, valid[k]].tolist()).convex_hull
        assert as_hull(hull).equals_exact(expected, 1e-9) or as_hull(hull).symmetric_difference(expected).area < 1e-9
        if size[k] > 2:
            assert Polygon(hull.tolist()).exterior.is_ccw
            assert Polygon(hull.tolist()).area == pytest.approx(expected.area)


def test_convex_iou_and_giou():
    points = point_sets(12, 6)
    _, quads, _ = rectangles(12, 7, dtype=torch.float64)
    quads[1::2] = quads[1::2].reshape(-1, 4, 2).flip(1).flatten(1)  # either sense of rotation
    iou = convex_iou(points, quads)
    giou = convex_giou(points, quads)
    for i in range(12):
        for j in range(12):
            hull, quad = as_hull(points[i]), as_polygon(quads[j])
            expected = hull.intersection(quad).area / hull.union(quad).area
            assert iou[i, j].item() == pytest.approx(expected, abs=1e-9)
            if i == j:
                enclosing = hull.union(quad).convex_hull.area
                expected -= (enclosing - hull.union(quad).area) / enclosing
                assert giou[i].item() == pytest.approx(expected, abs=1e-9)
    some = points[:3].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: convex_giou(p, quads[:3]), some)
    assert convex_iou(points[:0], quads).shape == (0, 12)


def test_overlaps_of_repeated_points():
    """Repeated points change nothing, and the first has the gradient; a single one has no area to overlap with."""
    points = point_sets(12, 6)
    _, quads, _ = rectangles(12, 7, dtype=torch.float64)
    leaf = points.clone().requires_grad_()
    giou = convex_giou(leaf, quads)
    (gradient,) = torch.autograd.grad(giou.sum(), leaf)
    repeated = torch.cat([points, points.flatten(1)], 1).requires_grad_()
    torch.testing.assert_close(convex_giou(repeated, quads), giou)
    (twice,) = torch.autograd.grad(convex_giou(repeated, quads).sum(), repeated)
    torch.testing.assert_close(twice, torch.cat([gradient, torch.zeros_like(gradient)], 1))

    square = torch.tensor([[0.0, 0, 4, 0, 4, 4, 0, 4]]).repeat(2, 1)
    single = torch.tensor([[2.0, 2.0], [4.0, 8.0]]).repeat(1, 9).requires_grad_()
    point = torch.tensor([[2.0, 2, 2, 2, 2, 2, 2, 2]])
    assert convex_iou(single, torch.cat([square, point])).tolist() == [[0, 0, 0], [0, 0, 0]]
    giou = convex_giou(single, square)
    assert giou.tolist() == pytest.approx([0, -8 / 24])  # of the hull of both, what belongs to neither
    (gradient,) = torch.autograd.grad(giou.sum(), single)
    assert gradient.isfinite().all()


def test_min_area_polygons():
    points = point_sets(25, 8)
    quads = min_area_polygons(points)
    for k in range(25):
        expected = MultiPoint(points[k].reshape(-1, 2).tolist()).minimum_rotated_rectangle.area
        rectangle = as_polygon(quads[k])
        assert rectangle.area == pytest.approx(expected, rel=1e-9)
        assert rectangle.buffer(1e-6).contains(as_hull(points[k]))
    assert min_area_polygons(points[:0]).shape == (0, 8)
    upright = torch.tensor([[0.0, 0, 4, 0, 4, 2, 0, 2, 1, 1, 2, 1, 3, 1, 1, 1.5, 2, 1.5]])
    torch.testing.assert_close(min_area_polygons(upright), torch.tensor([[4.0, 0, 0, 0, 0, 2, 4, 2]]))


def test_points_in_polygons():
    points = torch.rand(300, 2, dtype=torch.float64) * 100
    _, quads, _ = rectangles(10, 9, dtype=torch.float64)
    inside = points_in_polygons(points, quads)
    expected = [[float(as_polygon(q).contains(Point(p.tolist()))) for q in quads] for p in points]
    assert inside.tolist() == expected
    assert points_in_polygons(points[:0], quads).shape == (0, 10)


def test_sort_vertices():
    generator = torch.Generator().manual_seed(0)
    vertices = torch.zeros(1, 6, 24, 2)
    mask = torch.zeros(1, 6, 24, dtype=torch.bool)
    for k, places in enumerate([[0, 3, 9, 15], [8, 9, 10], [1, 2, 5, 7, 11, 13, 20, 23], [4, 12], [], [6, 7, 22]]):
        angle = torch.rand(len(places), generator=generator) * 2 * math.pi
        vertices[0, k, places] = torch.stack([angle.cos(), angle.sin()], 1)
        mask[0, k, places] = True
        index = sort_vertices(vertices, mask)[0, k].tolist()
        padding = min(set(range(8, 24)) - set(places))
        order = [places[i] for i in angle.argsort()]
        expected = [*order, order[0]] if len(places) > 2 else []
        assert index == expected + [padding] * (9 - len(expected))
