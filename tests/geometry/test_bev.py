"""Grids seen from above: cells, and BEVFormer's augmentation of features and boxes against recorded numbers."""

import math

import numpy as np
import pytest
import torch

from perception.geometry import boxes3d
from perception.geometry.bev import BevGrid, augmentation_matrix, warp
from tests.conftest import REPOSITORY

RECORDED = torch.load(REPOSITORY / "tests/data/reference/bevformer_v2/data_geometry.pt", weights_only=True)
GRID = BevGrid((-51.2, -51.2), (51.2, 51.2), 200, 200)


def test_cells_of_the_paper():
    assert GRID.cell_size == pytest.approx((0.512, 0.512))
    centres = GRID.centres(torch.float64)
    assert centres.shape == (40000, 2)
    np.testing.assert_allclose(centres[3 * 200 + 7], [-51.2 + 7.5 * 0.512, -51.2 + 3.5 * 0.512])
    numbers, inside = GRID.cells(centres)
    assert inside.all()
    assert torch.equal(numbers, torch.arange(40000))


def test_points_outside_have_no_cell():
    grid = BevGrid((0, -1), (4, 1), 2, 4)
    numbers, inside = grid.cells(torch.tensor([[0.0, -1], [3.99, 0.5], [4.0, 0], [-0.01, 0], [2, 1.0]]))
    assert inside.tolist() == [True, True, False, False, False]
    assert numbers.tolist() == [0, 7, 0, 0, 0]


@pytest.mark.parametrize("number", range(4))
def test_recorded_augmentations(number):
    case = RECORDED["bda"][number]
    matrix = augmentation_matrix(case["rot"], case["scale"], case["flip_dx"], case["flip_dy"])
    torch.testing.assert_close(torch.linalg.inv(matrix).float(), case["bda_mat_inv"], atol=1e-6, rtol=0)
    before = boxes3d.legacy_sizes_and_yaw(RECORDED["inputs"]["gt_gravity"].double())
    boxes = boxes3d.scale(boxes3d.rotate(before, case["rot"]), case["scale"])
    if case["flip_dx"]:
        boxes = boxes3d.flip_x(boxes)
    if case["flip_dy"]:
        boxes = boxes3d.flip_y(boxes)
    torch.testing.assert_close(boxes[:, :3], before[:, :3] @ matrix.T, atol=1e-5, rtol=0)
    for candidate in (boxes3d.to_legacy(boxes), boxes3d.legacy_sizes_and_yaw(boxes)):
        if (candidate[:, 2] - case["gt_after"][:, 2]).abs().max() < 1e-4:
            turns = ((candidate[:, 6] - case["gt_after"][:, 6]) / (2 * math.pi)).round()
            candidate[:, 6] -= 2 * math.pi * turns
            torch.testing.assert_close(candidate, case["gt_after"].double(), atol=2e-5, rtol=0)
            return
    pytest.fail("neither the centre nor the bottom is where it was recorded")


@pytest.mark.parametrize("number", range(4))
def test_a_warped_function_is_the_function_of_the_source(number):
    case = RECORDED["bda"][number]
    matrix = augmentation_matrix(case["rot"], case["scale"], case["flip_dx"], case["flip_dy"])
    inverse = torch.linalg.inv(matrix)

    def function(places):
        return torch.stack([(places[..., 0] / 9).sin() + (places[..., 1] / 13).cos(), places[..., 0] / 50])

    centres = GRID.centres(torch.float64).view(200, 200, 2)
    sources = centres @ inverse[:2, :2].T
    warped = warp(function(centres)[None], inverse[None], GRID)[0]
    inside = (sources.abs() < 50.5).all(-1)
    assert 0.7 < inside.double().mean() < 1
    assert (warped - function(sources))[:, inside].abs().max() < 1e-2
    outside = (sources.abs() > 52).any(-1)
    assert not warped[:, outside].any()


def test_each_of_a_batch_is_warped_by_its_own_matrix():
    grid = BevGrid((-8, -4), (8, 4), 8, 16)  # not square: x and y are not mixed up
    features = torch.rand(2, 3, 8, 16)
    matrices = torch.stack([augmentation_matrix(0, 1, True, False), augmentation_matrix(0, 1, False, True)])
    warped = warp(features, matrices, grid)
    torch.testing.assert_close(warped[0], features[0].flip(-1))
    torch.testing.assert_close(warped[1], features[1].flip(-2))
    turned = warp(features, augmentation_matrix(math.pi, 1, False, False)[None].expand(2, 3, 3), grid)
    torch.testing.assert_close(turned, features.flip(-1, -2), atol=1e-5, rtol=1e-5)
