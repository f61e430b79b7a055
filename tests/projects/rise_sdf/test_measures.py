"""Scores of materials: scaling, and what it leaves alone."""

import math

import pytest
import torch

from projects.rise_sdf.measures import median_scale, normal_error, scaled_psnr


def test_a_tint_of_the_object_does_not_count_and_the_background_stays():
    truth = torch.ones(8, 8, 3)
    truth[2:6, 2:6] = torch.rand(4, 4, 3, generator=torch.Generator().manual_seed(0)) * 0.5
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:6, 2:6] = True
    tint = torch.tensor([0.5, 0.8, 1.25])
    prediction = torch.where(mask[..., None], truth * tint, truth)
    torch.testing.assert_close(median_scale(prediction, truth, mask), 1 / tint)
    assert float(scaled_psnr(prediction, truth, mask)[0]) > 80
    prediction[0, 0] = 0
    assert float(scaled_psnr(prediction, truth, mask)[0]) == pytest.approx(10 * math.log10(64), abs=0.01)


def test_angle_of_normals_of_any_length():
    mask = torch.tensor([[True, False]])
    truth = torch.tensor([[[0.0, 0, 1], [0, 0, 1]]])
    prediction = torch.tensor([[[0.0, 0.3, 0.3], [1, 0, 0]]])
    assert float(normal_error(prediction, truth, mask)) == pytest.approx(45, abs=1e-3)
    assert math.isnan(float(normal_error(prediction, truth, torch.zeros_like(mask))))


def test_angle_of_normals_as_published():
    truth = torch.tensor([[[0.0, 0, 1]]]).expand(1, 4, 3)
    prediction = torch.tensor([[[0.0, 0, 0.5], [0, 0, -1], [0, 0, 1], [math.nan, 0, 0]]])
    weights = torch.tensor([[1.0, 1.0, 0.5, 0.5]])
    # Half as long is 60 degrees, behind is 90, not a number is none.
    assert float(normal_error(prediction, truth, weights, released=True)) == pytest.approx((60 + 90) / 3, abs=1e-3)
