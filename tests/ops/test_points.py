"""Points: sampling, neighbours, groups, voxels and boxes."""

import math

import torch

from perception.ops.ball_query import ball_query
from perception.ops.chamfer_distance import chamfer_distance
from perception.ops.furthest_point_sample import furthest_point_sample, furthest_point_sample_with_dist
from perception.ops.gather_points import gather_points
from perception.ops.group_points import group_points
from perception.ops.knn import knn
from perception.ops.points_in_boxes import first_box_of_points, points_in_boxes
from perception.ops.three_interpolate import three_interpolate
from perception.ops.three_nn import three_nn
from perception.ops.voxelization import hard_voxelize, voxel_coordinates


def cloud(batch, count, seed=0, dtype=torch.float32):
    return torch.rand(batch, count, 3, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 4


def squared(a, b):
    return ((a - b) ** 2).sum().item()


def test_furthest_point_sample():
    points = cloud(2, 40)
    points[:, 10] = points[:, 3]
    for b in range(2):
        taken = [0]
        while len(taken) < 12:
            nearest = [min(squared(p, points[b, t]) for t in taken) for p in points[b]]
            taken.append(nearest.index(max(nearest)))
        assert furthest_point_sample(points, 12)[b].tolist() == taken
    distances = torch.cdist(points, points)
    assert torch.equal(furthest_point_sample_with_dist(distances, 12), furthest_point_sample(points, 12))
    assert furthest_point_sample(points[:, :3], 5).shape == (2, 5)
    assert furthest_point_sample(points, 0).shape == (2, 0)


def test_furthest_points_without_padding():
    """pointnet2_ops: points within 3.2 cm of the origin are never taken, but the first point always is."""
    points = cloud(2, 30) + 3
    points[:, 10:] *= (torch.rand(2, 20, 1) > 0.5) * 1.0
    points[0, 0] = 0.01
    assert (points[1, furthest_point_sample(points, 8)[1]] == 0).all(1).any()
    for b in range(2):
        taken = [0]
        real = [k for k, p in enumerate(points[b]) if squared(p, torch.zeros(3)) > 1e-3]
        while len(taken) < 8:
            nearest = {k: min(squared(points[b, k], points[b, t]) for t in taken) for k in real}
            taken.append(max(real, key=lambda k: (nearest[k], -k)))
        assert furthest_point_sample(points, 8, skip_near_origin=True)[b].tolist() == taken
        assert set(taken[1:]) <= set(real)
    assert furthest_point_sample(torch.zeros(1, 5, 3), 4, skip_near_origin=True).tolist() == [[0, 0, 0, 0]]


def test_ball_query():
    points, centres = cloud(2, 60), cloud(2, 9, seed=1)
    centres[0, 0] = points[0, 50]  # at distance zero, inside the inner radius
    centres[1, 1] = 100  # nothing near
    for low, high, number in ((0.0, 1.0, 5), (0.7, 1.5, 4), (0.0, 9.0, 70)):
        found = ball_query(points, centres, low, high, number)
        for b in range(2):
            for m in range(9):
                distances = [squared(p, centres[b, m]) for p in points[b]]
                near = [k for k, d in enumerate(distances) if d == 0 or low**2 <= d < high**2][:number]
                expected = near + [near[0] if near else -1] * (number - len(near))
                assert found[b, m].tolist() == expected
    assert (ball_query(points[:, :0], centres, 0, 1, 3) == -1).all()
    assert ball_query(points, centres[:, :0], 0, 1, 3).shape == (2, 0, 3)


def test_nearest_neighbours():
    points, centres = cloud(2, 30), cloud(2, 7, seed=1)
    for b in range(2):
        for m in range(7):
            order = sorted(range(30), key=lambda k: squared(points[b, k], centres[b, m]))
            assert knn(6, points, centres)[1][b, m].tolist() == order[:6]
            assert three_nn(centres, points)[1][b, m].tolist() == order[:3]
    distances, indices = three_nn(centres, points)
    expected = centres[:, :, None] - points.gather(1, indices.flatten(1)[..., None].expand(-1, -1, 3)).view(2, 7, 3, 3)
    torch.testing.assert_close(distances, expected.square().sum(-1))


def test_fewer_points_than_neighbours():
    points, centres = cloud(1, 2), cloud(1, 3, seed=1)
    for distances, indices in (three_nn(centres, points), knn(3, points, centres)):
        assert distances[..., 2].isinf().all()
        assert (indices[..., 2] == 0).all()
        assert sorted(indices[0, 0, :2].tolist()) == [0, 1]


def test_gather_group_interpolate():
    features = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    index = torch.randint(0, 8, (2, 5, 3), dtype=torch.int32)
    weights = torch.rand(2, 5, 3, dtype=torch.float64)
    grouped = group_points(features, index)
    for b in range(2):
        for i in range(5):
            torch.testing.assert_close(gather_points(features, index[..., 0])[b, :, i], features[b, :, index[b, i, 0]])
            for s in range(3):
                torch.testing.assert_close(grouped[b, :, i, s], features[b, :, index[b, i, s]])
    torch.testing.assert_close(three_interpolate(features, index, weights), (grouped * weights[:, None]).sum(-1))
    for operator in (lambda f: group_points(f, index), lambda f: three_interpolate(f, index, weights)):
        assert torch.autograd.gradcheck(operator, features)


def test_chamfer_distance():
    first = cloud(2, 6, dtype=torch.float64)[..., :2].clone().requires_grad_()
    second = cloud(2, 9, seed=1, dtype=torch.float64)[..., :2].clone().requires_grad_()
    distances = (first[:, :, None] - second[:, None]).square().sum(-1)
    to_second, to_first, nearest_second, nearest_first = chamfer_distance(first, second)
    torch.testing.assert_close(to_second, distances.amin(2))
    torch.testing.assert_close(to_first, distances.amin(1))
    assert torch.equal(nearest_second, distances.argmin(2))
    assert torch.equal(nearest_first, distances.argmin(1))
    assert torch.autograd.gradcheck(lambda a, b: chamfer_distance(a, b)[:2], (first, second))


def test_points_in_boxes():
    points = cloud(1, 300)[0] - 2
    boxes = torch.tensor([[0.2, -0.3, -1, 2, 1, 1.5, 0.6], [0, 0, -2, 3, 3, 4, -2.0], [0, 0, -2, 0, 0, 0, 0]])
    inside = points_in_boxes(points, boxes)
    for n, (x, y, z) in enumerate(points.tolist()):
        holders = []
        for m, (cx, cy, bottom, sx, sy, sz, yaw) in enumerate(boxes.tolist()):
            along = (x - cx) * math.cos(yaw) + (y - cy) * math.sin(yaw)
            across = (y - cy) * math.cos(yaw) - (x - cx) * math.sin(yaw)
            expected = abs(along) < sx / 2 and abs(across) < sy / 2 and bottom <= z <= bottom + sz
            assert inside[n, m] == expected
            holders += [m] if expected else []
        assert first_box_of_points(points, boxes)[n] == (holders[0] if holders else -1)
    on_top, on_side = torch.tensor([[0.0, 0, 1]]), torch.tensor([[0.5, 0, 0.5]])
    unit = torch.tensor([[0.0, 0, 0, 1, 1, 1, 0]])
    assert points_in_boxes(on_top, unit).item()
    assert not points_in_boxes(on_side, unit).item()
    assert first_box_of_points(points, boxes[:0]).tolist() == [-1] * 300


def test_voxelization():
    points = torch.cat([cloud(1, 200)[0] * 1.2 - 0.4, torch.rand(200, 2)], 1)
    size, bounds = torch.tensor([0.5, 1.0, 2.0]), torch.tensor([0.0, 0, 0, 4, 4, 4])
    coordinates = voxel_coordinates(points, size, bounds)
    content, cells = {}, {}
    for n, point in enumerate(points):
        cell = [math.floor(point[a].item() / size[a].item()) for a in (2, 1, 0)]
        if all(0 <= c < limit for c, limit in zip(cell, (2, 4, 8))):
            assert coordinates[n].tolist() == cell
            cells.setdefault(tuple(cell), len(cells))
            content.setdefault(cells[tuple(cell)], []).append(n)
        else:
            assert coordinates[n].tolist() == [-1, -1, -1]
    for max_points, max_voxels in ((3, 1000), (100, 20), (1, 5)):
        voxels, where, number = hard_voxelize(points, size, bounds, max_points, max_voxels)
        assert len(voxels) == min(len(cells), max_voxels)
        for v in range(len(voxels)):
            members = content[v][:max_points]
            assert number[v] == len(members)
            assert cells[tuple(where[v].tolist())] == v
            torch.testing.assert_close(voxels[v, : len(members)], points[members])
            assert (voxels[v, len(members) :] == 0).all()
    assert hard_voxelize(points + 100, size, bounds, 3, 10)[0].shape == (0, 3, 5)
