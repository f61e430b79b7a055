"""Operators of radiance fields against their definitions, number by number."""

import math

import pytest
import torch

from perception.ops.hash_grid import hash_grid, hash_grid_layout
from perception.ops.masked_rmsprop import masked_rmsprop_
from perception.ops.nearest_codeword import nearest_codeword
from perception.ops.sample_rays import sample_rays
from perception.ops.trilinear import VoxelCorners, trilinear_gather, trilinear_scatter


def test_hash_grid_layout_of_a_published_model():
    """RISE-SDF: 16 levels from 32 to 8192, of which three are dense; 14 533 536 parameters."""
    layout = hash_grid_layout(16, 32, 1.447269237440378, 19)
    assert layout.resolutions[:4] == (32, 47, 68, 98)
    assert layout.resolutions[-1] == 8192
    assert [b - a for a, b in zip(layout.offsets, layout.offsets[1:])] == [32768, 103824, 314432] + [2**19] * 13
    assert 2 * layout.num_entries == 14_533_536


def test_hash_grid():
    layout = hash_grid_layout(3, 4, 2.5, 7)
    params = torch.randn(layout.num_entries, 2, dtype=torch.float64)
    points = torch.rand(20, 3, dtype=torch.float64)
    points[0], points[1] = 0.0, 1.0
    encoded = hash_grid(points, params, layout)
    assert encoded.shape == (20, 6)
    kinds = set()
    for point, features in zip(points.tolist(), encoded):
        for level, (resolution, scale) in enumerate(zip(layout.resolutions, layout.scales)):
            first, size = layout.offsets[level], layout.offsets[level + 1] - layout.offsets[level]
            place = [x * scale + 0.5 for x in point]
            total = torch.zeros(2, dtype=torch.float64)
            for corner in range(8):
                up = [corner >> 2, corner >> 1 & 1, corner & 1]
                x, y, z = (math.floor(p) + u for p, u in zip(place, up))
                weight = math.prod(p % 1 if u else 1 - p % 1 for p, u in zip(place, up))
                dense = resolution**3 <= size
                kinds.add(dense)
                index = x + y * resolution + z * resolution**2
                if not dense:
                    index = x ^ (y * 2654435761 % 2**32) ^ (z * 805459861 % 2**32)
                total += weight * params[first + index % size]
            torch.testing.assert_close(features[2 * level : 2 * level + 2], total)
    assert kinds == {True, False}
    with pytest.raises(ValueError, match="params must have the shape"):
        hash_grid(points, params[1:], layout)


def test_hash_grid_has_normals():
    """A gradient by the positions that can be differentiated again, as normals of a field are."""
    layout = hash_grid_layout(2, 4, 2.0, 6)
    params = torch.randn(layout.num_entries, 2, dtype=torch.float64, requires_grad=True)
    points = torch.rand(5, 3, dtype=torch.float64, requires_grad=True)
    (normals,) = torch.autograd.grad(hash_grid(points, params, layout).square().sum(), points, create_graph=True)
    (step,) = torch.autograd.grad(normals.square().sum(), params)
    assert step.abs().sum() > 0
    assert torch.autograd.gradgradcheck(lambda x, p: hash_grid(x, p, layout), (points, params), atol=1e-4)


def test_masked_rmsprop():
    parameter, grad = torch.randn(6, 3), torch.randn(6, 3)
    square = torch.rand(6, 3)
    square[1] = 0
    mask = torch.tensor([True, True, False, True, False, True])
    new, mean = parameter.clone(), square.clone()
    masked_rmsprop_(new, grad, mean, mask, lr=0.1, beta=0.9, eps=1e-8)
    for i in range(6):
        for j in range(3):
            g, v, p = (float(x[i, j]) for x in (grad, square, parameter))
            if mask[i]:
                v = g * g if v == 0 else 0.9 * v + 0.1 * g * g
                p -= 0.1 * g / (math.sqrt(v) + 1e-8)
            assert float(mean[i, j]) == pytest.approx(v, rel=1e-5)
            assert float(new[i, j]) == pytest.approx(p, rel=1e-4, abs=1e-6)
    torch.testing.assert_close((new - parameter)[1].abs(), torch.full((3,), 0.1))  # a first step is the learning rate


@pytest.mark.parametrize("masked", [False, True])
def test_sample_rays(masked):
    start = torch.tensor([[-1.5, 0.1, 0.2], [0.0, 0.0, 0.0], [5.0, 5.0, 5.0]], dtype=torch.float64)
    unit = torch.nn.functional.normalize(torch.tensor([[1.0, 0.2, 0.1], [0, 0, 1], [1, 0, 0]]).double(), dim=1)
    count = torch.tensor([40, 7, 10])
    low, high = torch.full((3,), -1.0).double(), torch.full((3,), 1.0).double()
    mask = torch.rand(4, 5, 3) > 0.5
    scale = (torch.tensor(mask.shape) - 1) / (high - low)
    shift = -low * scale
    cells = (mask, scale, shift) if masked else ()
    points, ray_id, step_id = sample_rays(start, unit, count, low, high, 0.1, *cells)
    expected = []
    for ray in range(3):
        for step in range(int(count[ray])):
            point = start[ray] + unit[ray] * (step * 0.1)
            inside = bool(((point >= low) & (point <= high)).all())
            if inside and masked:
                i, j, k = (math.floor(x + 0.5) for x in (point * scale + shift).tolist())
                inside = bool(mask[i, j, k])
            if inside:
                expected.append((ray, step, point))
    assert list(zip(ray_id.tolist(), step_id.tolist())) == [(ray, step) for ray, step, _ in expected]
    assert 0 < len(expected) < 47
    torch.testing.assert_close(points, torch.stack([point for _, _, point in expected]))


def test_sample_rays_refuses_half_a_mask():
    rays, corner = torch.zeros(3, 3), torch.zeros(3)
    with pytest.raises(RuntimeError, match="needs mask_scale and mask_shift"):
        sample_rays(rays, rays, torch.ones(3, dtype=torch.int64), corner, corner, 0.1, torch.ones(2, 2, 2) > 0, corner)


def test_trilinear_corners_are_weighted_means():
    table = torch.randn(2 * 3 * 4, 2, dtype=torch.float64)
    places = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [0.5, 1.25, 2.75], [-0.5, 0.0, 0.0], [7.0, 0, 0]]).double()
    corners = VoxelCorners(places, (2, 3, 4))
    values = trilinear_gather(table, corners)
    grid = table.view(2, 3, 4, 2)
    torch.testing.assert_close(values[0], grid[0, 0, 0])
    torch.testing.assert_close(values[1], grid[1, 2, 3])
    expected = 0.0
    for i in (0, 1):
        for j in (1, 2):
            for k in (2, 3):
                weight = 0.5 * (0.75 if j == 1 else 0.25) * (0.25 if k == 2 else 0.75)
                expected = expected + weight * grid[i, j, k]
    torch.testing.assert_close(values[2], expected)
    torch.testing.assert_close(values[3], grid[0, 0, 0] / 2)
    assert not values[4].any()
    spread = trilinear_scatter(torch.ones(5, 1).double(), corners)
    assert spread.sum().item() == pytest.approx(3.5)
    kept = corners[torch.tensor([True, False, True, False, False])]
    assert len(kept) == 2
    torch.testing.assert_close(trilinear_gather(table, kept), values[[0, 2]])


def test_nearest_codeword():
    codewords = torch.randn(9, 4)
    codewords[5] = codewords[2]
    vectors = torch.cat([torch.randn(30, 4), codewords[2:3]])
    expected = [min(range(9), key=lambda k: (float((v - codewords[k]).square().sum()), k)) for v in vectors]
    assert nearest_codeword(vectors, codewords).tolist() == expected
    assert nearest_codeword(vectors[:0], codewords).shape == (0,)
