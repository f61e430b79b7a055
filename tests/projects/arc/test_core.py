"""Rotated kernels and the adaptive convolution: recorded numbers, and the laws of spec section 10."""

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from projects.arc.conv import AdaptiveRotatedConv2d
from projects.arc.rotation import _coefficients, combine_kernels, rotation_matrix
from projects.arc.routing import RoutingFunction

FOLDER = Path(__file__).parents[2] / "data" / "reference" / "arc"
ROTATION = torch.load(FOLDER / "rotation.pt", weights_only=True)
CONVOLUTIONS = torch.load(FOLDER / "arc_conv.pt", weights_only=True)["cases"]


def ours(name):
    return name.replace("rounting_func.norm.norm", "routing.norm").replace("rounting_func", "routing")


def rotate(kernel, theta):
    """Rotated kernels (..., 3, 3)."""
    return (rotation_matrix(torch.as_tensor(theta, dtype=kernel.dtype)) @ kernel.flatten(-2)[..., None])[..., 0].view(
        *kernel.shape
    )


def test_recorded_rotation():
    case = ROTATION["rotation_matrix"]
    theta = case["inputs"]["theta"].clone().requires_grad_()
    matrix = rotation_matrix(theta)
    torch.testing.assert_close(matrix, case["outputs"]["matrix"], atol=1e-6, rtol=0)
    (grad,) = torch.autograd.grad(matrix, theta, case["inputs"]["cotangent"])
    torch.testing.assert_close(grad, case["grads"]["theta"], atol=1e-5, rtol=0)


def test_recorded_combination():
    case = ROTATION["combine"]
    leaves = [case["inputs"][name].clone().requires_grad_() for name in ("weight", "lambdas", "theta")]
    kernels = combine_kernels(*leaves).flatten(0, 1)
    torch.testing.assert_close(kernels, case["outputs"]["weight"], atol=1e-6, rtol=0)
    grads = torch.autograd.grad(kernels, leaves, case["inputs"]["cotangent"])
    for grad, name in zip(grads, ("weight", "lambdas", "theta")):
        torch.testing.assert_close(grad, case["grads"][name], atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=lambda case: "-".join(str(v) for v in case["meta"].values()))
def test_recorded_convolution(case):
    conv = AdaptiveRotatedConv2d(**{k: v for k, v in case["meta"].items() if k != "mode"}).eval()
    conv.load_state_dict({ours(name): value for name, value in case["state_dict"].items()})
    x = case["inputs"]["x"].clone().requires_grad_()
    result, (alpha, theta) = conv(x), conv.routing(x)
    for value, name in ((result, "y"), (alpha, "alpha"), (theta, "theta")):
        torch.testing.assert_close(value, case["outputs"][name], atol=1e-5, rtol=0)
    result.backward(case["inputs"]["cotangent"])
    gradients = {"x": x.grad, **{name: p.grad for name, p in conv.named_parameters()}}
    for name, expected in case["grads"].items():
        scale = expected.abs().max().item()
        torch.testing.assert_close(gradients[ours(name)], expected, atol=1e-4 * scale, rtol=0)


def test_rotation_is_grid_sample_with_a_repeated_border():
    kernel = torch.randn(1, 1, 3, 3, dtype=torch.float64)
    for degrees in (0, 3, 20, 33, 40, -3, -20, -33, -40):
        angle = math.radians(degrees)
        v, u = torch.meshgrid(*[torch.arange(-1.0, 2.0, dtype=torch.float64)] * 2, indexing="ij")
        place = torch.stack([u * math.cos(angle) - v * math.sin(angle), u * math.sin(angle) + v * math.cos(angle)], -1)
        expected = F.grid_sample(kernel, place[None], padding_mode="border", align_corners=True)
        torch.testing.assert_close(rotate(kernel, angle), expected, atol=1e-12, rtol=0)


def test_laws_of_the_rotation():
    angles = torch.linspace(-0.7, 0.7, 29, dtype=torch.float64)
    matrix = rotation_matrix(angles)
    torch.testing.assert_close(matrix.sum(-1), torch.ones(29, 9, dtype=torch.float64))
    assert torch.equal(rotation_matrix(torch.zeros(())), torch.eye(9))
    expected = torch.tensor([0.3660, 0.6340, 0, 0, 0, 0, 0, 0, 0]), torch.tensor([0, 0.4330, 0.4330, 0, 0.0670, 0.0670])
    first, second = rotation_matrix(torch.tensor(math.pi / 6))[:2]
    torch.testing.assert_close(first, expected[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(second[:6], expected[1], atol=1e-4, rtol=0)
    kernel = torch.randn(3, 3, dtype=torch.float64)
    torch.testing.assert_close(rotate(kernel.flip(1), 0.4), rotate(kernel, -0.4).flip(1))  # seen in a mirror
    even = torch.full((3, 3), 0.7, dtype=torch.float64)
    torch.testing.assert_close(rotate(even, 0.6), even)
    away = torch.tensor([-0.6, -0.2, 0.1, 0.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rotation_matrix, (away,))


def test_without_rotation_it_is_a_convolution():
    conv = AdaptiveRotatedConv2d(4, 6, stride=2).eval()
    conv.routing.forward = lambda x: (torch.ones(len(x), 1), torch.zeros(len(x), 1))
    x = torch.randn(3, 4, 9, 8)
    torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight[0], stride=2, padding=1))


def test_it_is_the_gated_sum_of_rotated_convolutions():
    conv = AdaptiveRotatedConv2d(4, 6, kernel_number=3).eval()
    x = torch.randn(2, 4, 7, 8)
    alpha, theta = conv.routing(x)
    for sample in range(2):
        total = sum(
            alpha[sample, j] * F.conv2d(x[sample : sample + 1], rotate(conv.weight[j], theta[sample, j]), padding=1)
            for j in range(3)
        )
        torch.testing.assert_close(conv(x)[sample : sample + 1], total, atol=1e-5, rtol=1e-5)


def test_samples_do_not_depend_on_their_batch():
    conv = AdaptiveRotatedConv2d(8, 8, kernel_number=4, groups=2).eval()
    x = torch.randn(5, 8, 6, 7)
    together = conv(x)
    torch.testing.assert_close(together, torch.cat([conv(sample[None]) for sample in x]), atol=1e-5, rtol=1e-5)
    order = torch.tensor([2, 0, 3, 1])
    conv.weight.data = conv.weight[order]
    for layer in (conv.routing.fc_alpha, conv.routing.fc_theta):
        layer.weight.data = layer.weight[order]
    conv.routing.fc_alpha.bias.data = conv.routing.fc_alpha.bias[order]
    torch.testing.assert_close(conv(x), together, atol=1e-5, rtol=1e-5)
    assert conv(x[:0]).shape == (0, 8, 6, 7)


def test_training_after_inference():
    _coefficients.cache_clear()
    conv = AdaptiveRotatedConv2d(4, 4)
    with torch.inference_mode():
        conv(torch.randn(1, 4, 5, 5))
    conv(torch.randn(1, 4, 5, 5)).sum().backward()
    assert conv.routing.fc_theta.weight.grad is not None


def test_bounds_and_initial_values():
    routing = RoutingFunction(16, 4)
    for layer in (routing.fc_alpha, routing.fc_theta):
        layer.weight.data *= 1e4
    alpha, theta = routing(torch.randn(9, 16, 5, 5) * 100)
    assert theta.abs().max() < 0.69814
    assert (alpha >= 0).all()
    assert (alpha <= 1).all()
    weight = AdaptiveRotatedConv2d(128, 128, kernel_number=4).weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (4 * 128 * 9)), rel=0.01)


def test_what_cannot_be_built_says_so():
    with pytest.raises(ValueError, match="only 3x3 kernels"):
        AdaptiveRotatedConv2d(4, 4, kernel_size=5)
    with pytest.raises(ValueError, match="3 groups do not divide"):
        AdaptiveRotatedConv2d(4, 4, groups=3)
    with pytest.raises(ValueError, match="between 0 and 45 degrees"):
        RoutingFunction(4, 1, proportion=60)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    conv = AdaptiveRotatedConv2d(8, 8, kernel_number=2).eval()
    x = torch.randn(2, 8, 9, 9)
    expected = conv(x)
    with torch.autocast("cpu", dtype=dtype):
        mixed = conv(x)
    torch.testing.assert_close(mixed.float(), expected, atol=0.05, rtol=0.05)
    half = conv.to(dtype)(x.to(dtype))
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), expected, atol=0.05, rtol=0.05)


def test_angles_can_be_identified():
    """Spec 10.7: the angles of a known mixture are found by descent."""
    generator = torch.Generator().manual_seed(0)
    kernels = torch.randn(3, 4, 4, 3, 3, generator=generator)
    x = torch.randn(8, 4, 16, 16, generator=generator)

    def apply(theta):
        return F.conv2d(x, combine_kernels(kernels, torch.ones(1, 3), theta[None])[0], padding=1)

    target = torch.tensor([0.5, -0.4, 0.2])
    goal = apply(target)
    theta = nn.Parameter(torch.tensor([0.1, -0.1, 0.1]))
    optimizer = torch.optim.Adam([theta], lr=0.02)
    for _ in range(300):
        loss = F.mse_loss(apply(theta), goal)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-8
    torch.testing.assert_close(theta.detach(), target, atol=1e-4, rtol=0)


def test_it_learns_the_angle_of_bars():
    """Spec 10.8: overfits the angles of 16 noisy bars."""
    generator = torch.Generator().manual_seed(1)
    angles = torch.linspace(-0.6, 0.6, 16)
    v, u = torch.meshgrid(*[torch.linspace(-1, 1, 16)] * 2, indexing="ij")
    across = u * angles.cos()[:, None, None] + v * angles.sin()[:, None, None]
    images = (across.abs() < 0.2).float() + 0.1 * torch.randn(16, 16, 16, generator=generator)
    arc = AdaptiveRotatedConv2d(8, 8, kernel_number=2)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), arc, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1)
    ).eval()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    losses = []
    for _ in range(100):
        loss = F.mse_loss(model(images[:, None])[:, 0], angles)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.1
    assert losses[-1] < 5e-3


def test_kernels_are_combined_without_a_copy_of_them():
    """The layout in memory survives what happens to weights in training, and the gradient has it too."""
    conv = AdaptiveRotatedConv2d(8, 6, kernel_number=4)
    other = AdaptiveRotatedConv2d(8, 6, kernel_number=4)
    other.load_state_dict({name: value.clone().contiguous() for name, value in conv.state_dict().items()})
    for module in (conv, other, copy.deepcopy(conv), copy.deepcopy(conv).double().float()):
        weight = module.weight
        assert weight.shape == (4, 6, 8, 3, 3)
        assert weight.permute(1, 2, 0, 3, 4).is_contiguous()
        module(torch.randn(2, 8, 5, 5)).sum().backward()
        assert weight.grad.permute(1, 2, 0, 3, 4).is_contiguous()
    assert torch.equal(other.weight, conv.weight)
    # Another layout is as right.
    alpha, theta = torch.rand(3, 4), torch.rand(3, 4) - 0.5
    torch.testing.assert_close(
        combine_kernels(conv.weight.detach().contiguous(), alpha, theta), combine_kernels(conv.weight, alpha, theta)
    )
