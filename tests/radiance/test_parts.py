"""Total variation, positional encoding, image metrics."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from scipy.stats import spearmanr

from perception.radiance import metrics
from perception.radiance.encodings import frequency_bands, positional_encoding
from perception.radiance.metrics import psnr, rank_correlation, sparsification_error, ssim
from perception.radiance.total_variation import total_variation_add_grad


@pytest.mark.parametrize("dense", [True, False])
def test_total_variation_pulls_towards_neighbours(dense):
    grid = torch.nn.Parameter(torch.randn(1, 2, 3, 4, 5) * 2)
    grid.grad = torch.randn_like(grid) * (torch.rand_like(grid) < 0.5)
    expected, weights = grid.grad.clone(), (0.5, 1.0, 2.0)
    for index in np.ndindex(*grid.shape):
        if dense or grid.grad[index] != 0:
            for axis in range(3):
                for step in (-1, 1):
                    other = list(index)
                    other[2 + axis] += step
                    if 0 <= other[2 + axis] < grid.shape[2 + axis]:
                        difference = float(grid[index]) - float(grid[tuple(other)])
                        expected[index] += weights[axis] / 6 * max(-1.0, min(1.0, difference))
    total_variation_add_grad(grid, weights, dense=dense)
    torch.testing.assert_close(grid.grad, expected)


def test_total_variation_needs_a_gradient():
    with pytest.raises(ValueError, match="backward"):
        total_variation_add_grad(torch.nn.Parameter(torch.zeros(1, 1, 2, 2, 2)), 1.0)


def test_positional_encoding_groups_bands_by_component():
    encoded = positional_encoding(torch.tensor([[0.1, 0.2]]), frequency_bands(3))
    angles = np.array([0.1, 0.2, 0.4, 0.2, 0.4, 0.8])
    assert encoded[0].tolist() == pytest.approx([0.1, 0.2, *np.sin(angles), *np.cos(angles)], abs=1e-6)


def reference_ssim(a: np.ndarray, b: np.ndarray) -> float:
    window = np.exp(-0.5 * (np.arange(11) - 5.0) ** 2 / 1.5**2)
    window /= window.sum()

    def blur(image):
        return correlate1d(correlate1d(image, window, 0), window, 1)[5:-5, 5:-5]

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, cov = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float((luminance * (2 * cov + c2) / (var_a + var_b + c2)).mean())


def test_metrics_equal_independent_ones(monkeypatch):
    rng = np.random.default_rng(0)
    a = rng.random((30, 41, 3))
    b = np.clip(a + rng.normal(0, 0.1, a.shape), -0.1, 1.2)
    first, second = torch.from_numpy(a), torch.from_numpy(b)
    assert float(psnr(second, first)) == pytest.approx(-10 * np.log10(((a - b) ** 2).mean()))
    assert float(ssim(second, first)) == pytest.approx(reference_ssim(b, a), abs=1e-5)
    monkeypatch.setattr(metrics, "BAND", 7)  # three bands, the last one smaller
    assert float(ssim(second, first)) == pytest.approx(reference_ssim(b, a), abs=1e-5)
    with pytest.raises(ValueError, match="11"):
        ssim(first[:8], second[:8])


def test_sparsification_error_by_hand():
    """Ten pixels, left out one by one: the root mean squared error of what remains, relative to that of all."""
    rng = np.random.default_rng(1)
    uncertainty, error = rng.random(10), rng.random(10)

    def curve(order):
        remaining = [error[order[: 10 - count]] for count in range(10)]  # the most uncertain ones are last
        return np.array([np.sqrt(part.mean()) for part in remaining]) / np.sqrt(error.mean())

    expected = (curve(np.argsort(uncertainty)) - curve(np.argsort(error))).mean()
    first, second = torch.from_numpy(uncertainty).view(2, 5), torch.from_numpy(error).view(2, 5)
    assert sparsification_error(first, second, steps=10) == pytest.approx(expected)
    assert sparsification_error(first**3, second, steps=10) == pytest.approx(expected)
    assert sparsification_error(-second, second) > sparsification_error(first, second) > 0
    assert np.isnan(sparsification_error(first, torch.zeros(2, 5)))
    nothing = torch.zeros(0)
    assert np.isnan([sparsification_error(nothing, nothing), rank_correlation(nothing, nothing)]).all()


def test_rank_correlation():
    rng = np.random.default_rng(2)
    first, second = rng.integers(0, 5, 40).astype(float), rng.random(40)
    assert rank_correlation(torch.from_numpy(first), torch.from_numpy(second)) == pytest.approx(
        spearmanr(first, second).statistic
    )
