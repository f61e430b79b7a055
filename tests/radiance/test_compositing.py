"""Opacities to weights, against a loop over samples."""

import pytest
import torch

from perception.radiance.activation import alpha_shift, raw2alpha
from perception.radiance.compositing import alphas_to_weights, segment_sum


def by_loop(alpha, ray_id, num_rays, grad_weights=None, grad_last=None):
    """Weights and last transmittance, and the gradient as the released kernel accumulates it from back to front."""
    weights, before = torch.zeros_like(alpha), torch.ones_like(alpha)
    last, gradient = alpha.new_ones(num_rays), torch.zeros_like(alpha)
    for ray in range(num_rays):
        samples, transmittance, end = (ray_id == ray).nonzero()[:, 0].tolist(), 1.0, 0
        for i in samples:
            before[i] = transmittance
            weights[i] = transmittance * float(alpha[i])
            transmittance *= 1 - float(alpha[i])
            end += 1
            if transmittance < 1e-3:
                break
        last[ray] = transmittance
        if grad_weights is not None:
            behind = float(grad_last[ray]) * transmittance
            for i in reversed(samples[:end]):
                gradient[i] = grad_weights[i] * before[i] - behind / (1 - float(alpha[i]) + 1e-10)
                behind += float(grad_weights[i] * weights[i])
    return weights, last, gradient


def ragged(num_rays=30, dtype=torch.float64):
    counts = torch.randint(0, 40, (num_rays,))
    counts[3] = counts[-1] = 0
    ray_id = torch.arange(num_rays).repeat_interleave(counts)
    return torch.rand(len(ray_id), dtype=dtype) ** 2, ray_id


def test_equals_the_loop_in_value_and_gradient():
    alpha, ray_id = ragged()
    alpha[::17] = 0
    alpha[5] = 1 - 1e-4
    alpha.requires_grad_()
    weights, last = alphas_to_weights(alpha, ray_id, 30)
    grad_weights, grad_last = torch.randn_like(weights), torch.randn_like(last)
    expected = by_loop(alpha.detach(), ray_id, 30, grad_weights, grad_last)
    torch.testing.assert_close(weights, expected[0])
    torch.testing.assert_close(last, expected[1])
    assert (weights == 0).sum() > 100  # rays ended early
    torch.autograd.backward([weights, last], [grad_weights, grad_last])
    torch.testing.assert_close(alpha.grad, expected[2])


def test_derivative_is_exact_where_no_ray_ends_early():
    alpha, ray_id = ragged(8)
    alpha = (alpha * 0.05).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: alphas_to_weights(a, ray_id, 8), (alpha,))


def test_weights_and_background_sum_to_one():
    alpha, ray_id = ragged(dtype=torch.float32)
    weights, last = alphas_to_weights(alpha, ray_id, 30)
    torch.testing.assert_close(segment_sum(weights, ray_id, 30) + last, torch.ones(30), atol=1e-5, rtol=0)


def test_opaque_sample_ends_a_ray():
    alpha = torch.tensor([0.5, 1.0, 0.5], requires_grad=True)
    weights, last = alphas_to_weights(alpha, torch.zeros(3, dtype=torch.long), 2)
    assert weights.tolist() == [0.5, 0.5, 0]
    assert last.tolist() == [0, 1]
    (weights.sum() + last.sum()).backward()
    assert bool(alpha.grad.isfinite().all())


def test_no_samples():
    alpha = torch.zeros(0, requires_grad=True)
    weights, last = alphas_to_weights(alpha, torch.zeros(0, dtype=torch.long), 4)
    assert last.tolist() == [1] * 4
    (weights.sum() + last.sum()).backward()
    assert alpha.grad.shape == (0,)


@pytest.mark.parametrize("interval", [0.5, 1.0, 1.7])
def test_opacity_and_its_slope(interval):
    density = torch.linspace(-12, 12, 97, dtype=torch.float64, requires_grad=True)
    shift = torch.tensor([-4.5951])
    alpha = raw2alpha(density, shift, interval)
    expected = 1 - torch.exp(-interval * torch.nn.functional.softplus(density + shift.double()))
    torch.testing.assert_close(alpha, expected)
    pull = torch.randn_like(alpha)
    torch.testing.assert_close(
        *(torch.autograd.grad(a, density, pull, retain_graph=True)[0] for a in (alpha, expected))
    )


def test_opacity_of_overflowing_density_has_a_finite_slope():
    density = torch.tensor([1000.0, 88.0, -1000.0], requires_grad=True)
    alpha = raw2alpha(density, 0.0, 0.5)
    alpha.sum().backward()
    assert alpha.tolist() == [1, 1, 0]
    assert bool(density.grad.isfinite().all())


def test_shift_gives_the_initial_opacity():
    assert alpha_shift(1e-2) == pytest.approx(-4.5951, abs=1e-4)
    assert alpha_shift(1e-6) == pytest.approx(-13.8155, abs=1e-4)
    assert float(raw2alpha(torch.zeros(()), alpha_shift(1e-2), 1.0)) == pytest.approx(1e-2, rel=1e-4)
    with pytest.raises(ValueError, match="alpha_init"):
        alpha_shift(1.0)
