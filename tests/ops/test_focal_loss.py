"""Focal losses."""

import math

import pytest
import torch
import torch.nn.functional as F

from perception.ops.focal_loss import sigmoid_focal_loss, softmax_focal_loss
from tests.ops.definitions import strided

TARGET = torch.tensor([0, 2, 3, 1, 2])  # 3 is background


def logits():
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.0, 0.5), (1.5, 0.9)])
@pytest.mark.parametrize("weighted", [False, True])
def test_sigmoid(gamma, alpha, weighted):
    weight = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64) if weighted else None

    def plain(x):
        rows = []
        for row, t in zip(x, TARGET.tolist()):
            factor = weight[t] if weighted and t < 3 else 1
            for c in range(3):
                p = row[c].sigmoid()
                positive = -alpha * (1 - p) ** gamma * p.log()
                rows.append(factor * (positive if c == t else -(1 - alpha) * p**gamma * (1 - p).log()))
        return torch.stack(rows).reshape(5, 3)

    x = logits().requires_grad_()
    ours = sigmoid_focal_loss(x, TARGET, gamma, alpha, weight)
    torch.testing.assert_close(ours, plain(x))
    torch.testing.assert_close(sigmoid_focal_loss(strided(x.detach()), TARGET, gamma, alpha, weight), ours.detach())
    factors = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3)
    expected = torch.autograd.grad((plain(x) * factors).sum(), x)
    torch.testing.assert_close(torch.autograd.grad((ours * factors).sum(), x), expected)


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (1.0, 0.5)])
@pytest.mark.parametrize("weighted", [False, True])
def test_softmax(gamma, alpha, weighted):
    weight = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64) if weighted else None
    target = torch.tensor([0, 2, -1, 1, 2])  # negative is ignored

    def plain(x):
        p = x.softmax(1)
        rows = [x.sum() * 0 if t < 0 else -alpha * (1 - p[n, t]) ** gamma * p[n, t].log() for n, t in enumerate(target)]
        return torch.stack([row * (weight[t] if weighted else 1) for row, t in zip(rows, target)])

    x = logits().requires_grad_()
    ours = softmax_focal_loss(x, target, gamma, alpha, weight)
    torch.testing.assert_close(ours, plain(x))
    factors = torch.linspace(-1, 1, 5, dtype=torch.float64)
    expected = torch.autograd.grad((plain(x) * factors).sum(), x)
    torch.testing.assert_close(torch.autograd.grad((ours * factors).sum(), x), expected)


def test_softmax_without_focus_is_cross_entropy():
    x, target = logits(), TARGET.clamp(max=2)
    torch.testing.assert_close(softmax_focal_loss(x, target, 0.0, 1.0), F.cross_entropy(x, target, reduction="none"))


def test_saturated_logits():
    """In float32 1 - sigmoid(20) is zero: its logarithm is bounded, and the gradient does not vanish."""
    x = torch.tensor([[20.0, -200.0]], requires_grad=True)
    loss = sigmoid_focal_loss(x, torch.tensor([1]))
    bound = -math.log(torch.finfo(torch.float32).tiny)
    torch.testing.assert_close(loss, torch.tensor([[0.75 * bound, 0.25 * bound]]))
    loss.sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([[0.75, -0.25]]))


def test_lower_precision_and_no_samples():
    for loss in (sigmoid_focal_loss, softmax_focal_loss):
        x = logits().half().requires_grad_()
        value = loss(x, TARGET.clamp(max=2))
        assert value.dtype == torch.half
        torch.testing.assert_close(value.double(), loss(x.double(), TARGET.clamp(max=2)), atol=5e-3, rtol=5e-3)
        value.sum().backward()
        assert x.grad.dtype == torch.half
        assert loss(x[:0], TARGET[:0]).shape[0] == 0
