"""PointNet++'s blocks: numbers recorded with the semantics of pointnet2_ops, and names of published weights."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from perception.layers.point_sets import (
    FeaturePropagation,
    SetAbstraction,
    SharedMLP,
    ball_groups,
    conv1d_stack,
    interpolate_features,
    pooled_groups,
    sample_points,
    weighted_rows,
)
from perception.ops.furthest_point_sample import furthest_point_sample
from perception.ops.group_points import group_points
from perception.ops.three_interpolate import three_interpolate
from perception.ops.three_nn import three_nn

FILE = Path(__file__).parents[1] / "data" / "reference" / "adaformer" / "point_ops.pt"


@pytest.fixture(scope="module")
def case():
    return torch.load(FILE, weights_only=True)


def test_recorded_samples(case):
    """Point 5 of the first cloud lies within the radius of padding."""
    xyz, expected = case["inputs"]["xyz"], case["outputs"]
    assert torch.equal(sample_points(xyz, 20, fps=True).int(), expected["fps"])
    assert torch.equal(
        furthest_point_sample(xyz[:, 1:].contiguous(), 20, skip_near_origin=True).int(),
        expected["fps_without_first_point"],
    )
    assert sample_points(xyz, 3, fps=False).tolist() == [[0, 1, 2]] * 2
    with pytest.raises(ValueError, match="65 points cannot be sampled from 64"):
        sample_points(xyz, 65, fps=False)


def test_recorded_groups(case):
    """One of the centres has no point near it."""
    inputs, expected = case["inputs"], case["outputs"]
    features = inputs["feat"].clone().requires_grad_()
    groups = ball_groups(inputs["xyz"], features, inputs["new_xyz"], inputs["radius"], inputs["nsample"])
    indices = expected["ball_query"].long()
    relative = group_points(inputs["xyz"].mT, indices) - inputs["new_xyz"].mT[..., None]
    assert_close(groups[:, :3], relative, atol=1e-6, rtol=0)
    assert_close(groups[:, 3:], expected["group"], atol=0, rtol=0)
    groups[:, 3:].backward(inputs["grad_out"])
    assert_close(features.grad, expected["group_grad"], atol=1e-6, rtol=1e-6)


def test_recorded_interpolation(case):
    """Sources 7 and 8 of the second cloud are one point: of equally near ones we take the earlier."""
    inputs, expected = case["inputs"], case["outputs"]
    squared, indices = three_nn(inputs["unknown"], inputs["known"])
    assert_close(squared, expected["three_nn_d2"], atol=1e-6, rtol=0)
    recorded = expected["three_nn_idx"].sort(-1).values
    assert torch.equal(indices.int().sort(-1).values, recorded)
    tied = (indices[1, :, :-1] == 8) & (indices[1, :, 1:] == 7)
    assert not tied.any()
    found = interpolate_features(inputs["unknown"], inputs["known"], inputs["feat"][..., : inputs["known"].shape[1]])
    assert_close(found, expected["interp"], atol=1e-6, rtol=1e-6)


def test_names_are_those_of_pointnet2_ops():
    module = SetAbstraction(0.3, 4, [5, 8, 16])
    assert module.state_dict()["mlps.0.layer0.conv.weight"].shape == (8, 8, 1, 1)
    assert {name for name, _ in module.named_parameters()} == {
        f"mlps.0.layer{i}.{rest}" for i in range(2) for rest in ("conv.weight", "bn.bn.weight", "bn.bn.bias")
    }
    stack = conv1d_stack([4, 8], 3)
    assert "1.conv.bias" in stack.state_dict()
    assert "0.conv.bias" not in stack.state_dict()
    assert torch.equal(stack[1].conv.bias, torch.zeros(3))


def test_the_maximum_is_over_the_members_of_a_ball():
    """Two clusters far from each other do not know of one another."""
    torch.manual_seed(0)
    module = SetAbstraction(1.0, 8, [2, 4]).eval()
    near, far = torch.rand(1, 6, 3), torch.rand(1, 6, 3) + 10
    features = torch.randn(1, 2, 12)
    together = module(torch.cat([near, far], 1), features, 6)
    alone = module(near, features[..., :6], 6)
    assert_close(together.features, alone.features)
    assert_close(together.xyz, near)


def test_propagation_puts_interpolated_features_first():
    module = FeaturePropagation([3 + 2, 4]).eval()
    fine, coarse = torch.rand(1, 7, 3), torch.rand(1, 5, 3)
    own, above = torch.randn(1, 2, 7), torch.randn(1, 3, 5)
    merged = torch.cat([interpolate_features(fine, coarse, above), own], 1)
    assert_close(module(fine, coarse, own, above), module.mlp(merged[..., None])[..., 0])
    alone = FeaturePropagation([3, 4]).eval()
    expected = alone.mlp(interpolate_features(fine, coarse, above)[..., None])[..., 0]
    assert_close(alone(fine, coarse, None, above), expected)


# ---------------------------------------------------------------------------------------------------------- in groups


def test_weighted_rows_are_those_of_interpolation():
    x = torch.randn(2, 7, 5, dtype=torch.float64, requires_grad=True)
    indices = torch.randint(0, 7, (2, 4, 3))
    weights = torch.rand(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert_close(weighted_rows(x, indices, weights), three_interpolate(x.mT, indices, weights).mT)
    assert torch.autograd.gradcheck(lambda *inputs: weighted_rows(inputs[0], indices, inputs[1]), (x, weights))


@pytest.mark.parametrize("channels", [0, 2, 12])
@pytest.mark.parametrize("training", [True, False])
def test_groups_are_pooled_as_if_every_member_went_through_every_layer(channels, training):
    """Gradients and running statistics too; in training the first layer sees points once where that is less."""
    torch.manual_seed(0)
    mlps = [SharedMLP([3 + channels, 12, 8]).double().train(training) for _ in range(2)]
    for buffer in mlps[0].buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    mlps[1].load_state_dict(mlps[0].state_dict())
    xyz = torch.rand(2, 40, 3, dtype=torch.float64)
    features = torch.randn(2, channels, 40, dtype=torch.float64) if channels else None
    pooled = pooled_groups(mlps[0], xyz, features, xyz[:, :10], 0.3, 6)
    expected = mlps[1](ball_groups(xyz, features, xyz[:, :10], 0.3, 6)).amax(-1)
    assert_close(pooled, expected)
    slope = torch.randn_like(pooled)
    (pooled * slope).sum().backward()
    (expected * slope).sum().backward()
    for one, other in zip(mlps[0].parameters(), mlps[1].parameters(), strict=True):
        assert_close(one.grad, other.grad, rtol=1e-6, atol=1e-9)
    for one, other in zip(mlps[0].buffers(), mlps[1].buffers(), strict=True):
        assert_close(one, other)


def test_of_equal_members_the_first_has_the_gradient():
    """As max-pooling has it: a point that is there twice, as in clouds drawn with repetition."""
    torch.manual_seed(0)
    module = SetAbstraction(0.5, 6, [4, 12, 8]).double()
    points, features = torch.rand(1, 5, 3, dtype=torch.float64), torch.randn(1, 4, 5, dtype=torch.float64)
    points, features = points.repeat(1, 2, 1), features.repeat(1, 1, 2).requires_grad_()
    groups = module.mlps[0](ball_groups(points, features, points[:, :4], 0.5, 6))
    pooled = torch.nn.functional.max_pool2d(groups, [1, 6])[..., 0]
    (expected,) = torch.autograd.grad(pooled.sin().sum(), features)
    found = module(points, features, 4).features
    assert_close(found, pooled)
    assert_close(torch.autograd.grad(found.sin().sum(), features)[0], expected)


@pytest.mark.parametrize("channels", [0, 2, 12])
@pytest.mark.parametrize("training", [True, False])
def test_positions_in_units_of_the_radius(channels, training):
    torch.manual_seed(0)
    module = SetAbstraction(0.4, 5, [channels, 12, 8], normalize_xyz=True).double().train(training)
    xyz = torch.rand(2, 30, 3, dtype=torch.float64)
    features = torch.randn(2, channels, 30, dtype=torch.float64) if channels else None
    groups = ball_groups(xyz, features, xyz[:, :9], 0.4, 5)
    groups[:, :3] /= 0.4
    assert_close(ball_groups(xyz, features, xyz[:, :9], 0.4, 5, normalize_xyz=True), groups)
    assert_close(module(xyz, features, 9).features, module.mlps[0](groups).amax(-1))
