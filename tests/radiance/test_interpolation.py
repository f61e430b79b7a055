"""Trilinear reading against grid_sample, and its transpose."""

import pytest
import torch
import torch.nn.functional as F

from perception.ops.trilinear import trilinear_scatter
from perception.radiance.grids import DenseGrid
from perception.radiance.interpolation import grid_corners, trilinear

LOW, HIGH = torch.tensor([-1.0, -2.0, 0.5]), torch.tensor([1.5, 0.0, 2.0])


def points(count: int, dtype=torch.float32) -> torch.Tensor:
    """Points inside the box and up to half its size around it."""
    return (LOW + (HIGH - LOW) * (2 * torch.rand(count, 3) - 0.5)).to(dtype)


def by_grid_sample(grid, xyz, align_corners):
    unit = ((xyz - LOW) / (HIGH - LOW)).flip(-1) * 2 - 1
    return F.grid_sample(grid, unit[None, None, None], align_corners=align_corners)[0, :, 0, 0].T


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("shape", [(5, 7, 4), (1, 1, 1), (2, 9, 3)])
def test_equals_grid_sample_in_value_and_gradient(align_corners, shape):
    dense = DenseGrid(3, shape, LOW, HIGH, align_corners=align_corners)
    dense.grid.data.normal_()
    xyz, pull = points(400), torch.randn(400, 3)
    read = dense(xyz)
    expected = by_grid_sample(dense.grid, xyz, align_corners)
    torch.testing.assert_close(read, expected, atol=2e-6, rtol=0)
    gradients = [torch.autograd.grad(values, dense.grid, pull, retain_graph=True)[0] for values in (read, expected)]
    torch.testing.assert_close(*gradients, atol=2e-5, rtol=0)


def test_gradient_is_exact_in_double_precision():
    grid = torch.randn(1, 2, 3, 4, 3, dtype=torch.float64, requires_grad=True)
    corners = grid_corners(points(20, torch.float64), LOW.double(), HIGH.double(), (3, 4, 3), align_corners=False)
    assert torch.autograd.gradcheck(lambda table: trilinear(table, corners), (grid,))


def test_points_receive_a_gradient_when_they_ask_for_it():
    dense = DenseGrid(1, (4, 4, 4), LOW, HIGH)
    dense.grid.data.copy_(torch.linspace(0, 3, 4).view(1, 1, 4, 1, 1).expand(1, 1, 4, 4, 4))
    inside = (LOW + 0.3 * (HIGH - LOW))[None].requires_grad_()
    dense(inside).sum().backward()
    torch.testing.assert_close(inside.grad, torch.tensor([[3 / 2.5, 0.0, 0.0]]))


def test_splat_is_the_transpose_of_reading():
    shape = (4, 3, 5)
    grid, values = torch.randn(1, 2, *shape), torch.randn(50, 2)
    corners = grid_corners(points(50), LOW, HIGH, shape, align_corners=True)
    read, spread = trilinear(grid, corners), trilinear_scatter(values, corners)
    torch.testing.assert_close((read * values).sum(), (spread * grid.permute(0, 2, 3, 4, 1).reshape(60, 2)).sum())


def test_no_points_and_impossible_points():
    dense = DenseGrid(2, (3, 3, 3), LOW, HIGH)
    dense.grid.data.fill_(1.0)
    assert dense(torch.zeros(0, 3)).shape == (0, 2)
    strange = torch.tensor([[float("nan")] * 3, [float("inf")] * 3, [1e30, 0, 0]])
    assert torch.equal(dense(strange), torch.zeros(3, 2))


def test_table_is_a_view_in_xyz_order():
    dense = DenseGrid(3, (2, 4, 5), LOW, HIGH)
    dense.table()[1 * 20 + 2 * 5 + 3] = torch.tensor([1.0, 2.0, 3.0])
    assert dense.grid[0, :, 1, 2, 3].tolist() == [1, 2, 3]
    assert float(dense.grid.detach().sum()) == 6


def test_scaling_equals_interpolation_of_voxel_centres():
    dense = DenseGrid(3, (4, 5, 6), LOW, HIGH)
    dense.grid.data.normal_()
    old = dense.grid.detach().clone()
    dense.scale_volume_grid((7, 9, 8))
    expected = F.interpolate(old, size=(7, 9, 8), mode="trilinear", align_corners=True)
    torch.testing.assert_close(dense.grid, expected)
    assert dense.grid.is_contiguous(memory_format=torch.channels_last_3d)
    assert dense.world_size == (7, 9, 8)
