"""The distortion loss against its definition as a double sum."""

import pytest
import torch

from perception.radiance.distortion import distortion_loss


def double_sum(weights, midpoints, interval, ray_id, num_rays):
    same = ray_id[:, None] == ray_id[None]
    pairs = weights[:, None] * weights[None] * (midpoints[:, None] - midpoints[None]).abs() * same
    return ((interval / 3 * weights.square()).sum() + pairs.sum()) / num_rays


def case(dtype=torch.float64):
    ray_id = torch.tensor([0] * 5 + [2] * 1 + [3] * 7 + [6] * 3)  # rays 1, 4, 5 and the last are empty
    midpoints = torch.cat([torch.rand(int(n), dtype=dtype).sort().values for n in ray_id.bincount() if n])
    return torch.rand(16, dtype=dtype), midpoints, 0.05, ray_id, 8


@pytest.mark.parametrize("interval", [0.05, torch.linspace(0.01, 0.08, 16, dtype=torch.float64)], ids=["one", "each"])
def test_value_and_gradient(interval):
    weights, *others = case()
    others[1] = interval
    weights.requires_grad_()
    torch.testing.assert_close(distortion_loss(weights, *others), double_sum(weights, *others))
    (ours,) = torch.autograd.grad(distortion_loss(weights, *others), weights)
    (theirs,) = torch.autograd.grad(double_sum(weights, *others), weights)
    torch.testing.assert_close(ours, theirs)
    assert torch.autograd.gradcheck(lambda w: distortion_loss(w, *others), weights)


def test_many_rays_lose_no_precision():
    """Running sums over 400 000 samples in single precision would."""
    count, length = 20_000, 20
    ray_id = torch.arange(count).repeat_interleave(length)
    midpoints = ((torch.arange(length) + 0.5) / length).repeat(count)
    weights = (torch.rand(count * length) / length).requires_grad_()
    loss = distortion_loss(weights, midpoints, 1 / length, ray_id, count)
    dense = weights.detach().double().view(count, length)
    s = midpoints[:length].double()
    pairs = (s[:, None] - s[None]).abs()
    wanted = (dense.square().sum() / length / 3 + torch.einsum("ni,ij,nj->", dense, pairs, dense)) / count
    assert float(loss) == pytest.approx(float(wanted), rel=1e-6)
    (grad,) = torch.autograd.grad(loss, weights)
    exact = (2 / 3 / length * dense + 2 * dense @ pairs) / count
    torch.testing.assert_close(grad.double().view(count, length), exact, rtol=1e-5, atol=1e-12)


def test_rays_behind_the_last_sample_do_not_count_by_default():
    weights, midpoints, interval, ray_id, rays = case()
    assert float(distortion_loss(weights, midpoints, interval, ray_id) * 7) == pytest.approx(
        float(distortion_loss(weights, midpoints, interval, ray_id, rays) * 8)
    )


@pytest.mark.parametrize("rays", [4, None])
def test_no_samples(rays):
    weights = torch.zeros(0, requires_grad=True)
    loss = distortion_loss(weights, torch.zeros(0), 0.1, torch.zeros(0, dtype=torch.long), rays)
    assert float(loss) == 0
    loss.backward()
    assert weights.grad.shape == (0,)
