"""PointNet++'s blocks: numbers recorded with the semantics of pointnet2_ops, and names of published weights."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from perception.layers.point_sets import (
    FeaturePropagation,
    SetAbstraction,
    ball_groups,
    conv1d_stack,
    interpolate_features,
    sample_points,
)
from perception.ops.furthest_point_sample import furthest_point_sample
from perception.ops.group_points import group_points
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
