"""MaskedAdam against its formula."""

import copy

import pytest
import torch

from perception.radiance.optim import MaskedAdam

SHAPE = (1, 3, 4, 5, 6)


def parameter(channels_last: bool) -> torch.nn.Parameter:
    values = torch.randn(SHAPE)
    return torch.nn.Parameter(values.to(memory_format=torch.channels_last_3d) if channels_last else values)


def expected_step(p, g, m, v, t, lr, skip=False, scale=1.0, b1=0.9, b2=0.99, eps=1e-8):
    new_m, new_v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    size = lr * (1 - b2**t) ** 0.5 / (1 - b1**t)
    new_p = p - size * scale * new_m / (new_v.sqrt() + eps)
    if not skip:
        return new_p, new_m, new_v
    return tuple(torch.where(g != 0, new, old) for new, old in ((new_p, p), (new_m, m), (new_v, v)))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.9])
@pytest.mark.parametrize("mode", ["dense", "skip", "per voxel"])
def test_follows_its_formula(channels_last, share, mode):
    p = parameter(channels_last)
    optimizer = MaskedAdam([p], lr=0.1, skip_zero_grad=mode == "skip")
    scale = 1.0
    if mode == "per voxel":
        count = torch.randint(0, 9, SHAPE).float()
        count[0, 0, 0, 0, 0] = 9
        optimizer.set_pervoxel_lr(p, count)
        scale = count / 9
    state = (p.detach().clone(), torch.zeros(SHAPE), torch.zeros(SHAPE))
    for t in range(1, 6):
        g = torch.randn(SHAPE) * (torch.rand(1, 1, *SHAPE[2:]) < share) * (torch.rand(SHAPE) < 0.8)
        p.grad = g.clone()
        optimizer.step()
        state = expected_step(*state[:1], g, *state[1:], t, 0.1, mode == "skip", scale)
        torch.testing.assert_close(p.detach(), state[0], atol=1e-6, rtol=1e-5)
    own = optimizer.state[p]
    assert own["step"].item() == 5
    torch.testing.assert_close(own["exp_avg"], state[1])
    torch.testing.assert_close(own["exp_avg_sq"], state[2])


@pytest.mark.parametrize("other_layout", [False, True])
def test_state_survives_a_checkpoint(other_layout):
    p = parameter(True)
    optimizer = MaskedAdam([p], lr=0.1, skip_zero_grad=True)
    optimizer.set_pervoxel_lr(p, torch.rand(SHAPE))
    q = torch.nn.Parameter(p.detach().clone())
    gradients = [torch.randn(SHAPE) for _ in range(4)]
    for g in gradients[:2]:
        p.grad = g
        optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    if other_layout:
        for state in saved["state"].values():
            state.update({k: v.contiguous() for k, v in state.items() if v.dim() == 5})
    q.data = p.detach().clone()
    resumed = MaskedAdam([q], lr=1.0)
    resumed.load_state_dict(saved)
    for g in gradients[2:]:
        p.grad, q.grad = g, g.clone()
        optimizer.step()
        resumed.step()
    assert torch.equal(p, q)


def test_impossible_arguments_are_refused():
    p = parameter(False)
    with pytest.raises(ValueError, match="betas"):
        MaskedAdam([p], betas=(1.0, 0.9))
    optimizer = MaskedAdam([p])
    with pytest.raises(ValueError, match="shape"):
        optimizer.set_pervoxel_lr(p, torch.ones(3))
    with pytest.raises(ValueError, match="no voxel"):
        optimizer.set_pervoxel_lr(p, torch.zeros(SHAPE))


@pytest.mark.parametrize("shape", [(8, 4, 1, 1), (8, 4, 3, 3), (8, 1, 3, 3)])
def test_weights_of_convolutions_in_channels_last(shape):
    """Their gradients may have other strides, also where sides of 1 make both layouts the same numbers."""
    generator = torch.Generator().manual_seed(0)
    start, grad = (torch.randn(shape, generator=generator) for _ in range(2))
    plain = torch.nn.Parameter(start.clone())
    last = torch.nn.Parameter(start.clone().to(memory_format=torch.channels_last))
    for parameter in (plain, last):
        optimizer = MaskedAdam([parameter], lr=0.1)
        for _ in range(2):
            parameter.grad = grad.clone()
            optimizer.step()
    torch.testing.assert_close(last.data, plain.data)
