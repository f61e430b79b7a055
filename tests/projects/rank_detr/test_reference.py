"""Equality with numbers recorded from the authors' released code."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from projects.rank_detr.layers import proposal_position_embedding
from projects.rank_detr.levels import encoder_proposals, encoder_reference_points, valid_ratio
from projects.rank_detr.losses import RankDetrCriterion
from projects.rank_detr.matching import RankDetrMatcher, iou_and_giou

FOLDER = Path(__file__).parents[2] / "data" / "reference" / "rank_detr"


@pytest.fixture(scope="module")
def layers():
    return torch.load(FOLDER / "layers.pt", weights_only=True)["outputs"]


@pytest.fixture(scope="module")
def recorded():
    return torch.load(FOLDER / "matcher_criterion.pt", weights_only=True)


def test_proposal_embedding(layers):
    case = layers["proposal_pos_embed"]
    for num_feats in (16, 128):
        embedded = proposal_position_embedding(case["proposals_unactivated"], num_feats)
        assert_close(embedded, case[f"feats{num_feats}"], atol=1e-5, rtol=0)


def test_encoder_proposals(layers):
    case = layers["encoder_proposals"]
    masks = case["mask_levels"]
    memory, proposals = encoder_proposals(
        case["memory"], torch.cat([mask.flatten(1) for mask in masks], 1), case["spatial_shapes"]
    )
    project, norm = nn.Linear(32, 32), nn.LayerNorm(32)
    project.load_state_dict(case["enc_output"])
    norm.load_state_dict(case["enc_output_norm"])
    assert case["output_proposals"].isinf().any()
    assert_close(proposals, case["output_proposals"], atol=1e-5, rtol=0)
    assert_close(norm(project(memory)), case["output_memory"], atol=1e-5, rtol=0)
    ratios = torch.stack([valid_ratio(mask) for mask in masks], 1)
    assert_close(ratios, case["valid_ratios"])
    points = encoder_reference_points(case["spatial_shapes"], ratios)
    assert_close(points, case["encoder_reference_points"], atol=1e-5, rtol=0)


def test_box_functions(layers):
    case = layers["boxes"]
    iou, giou = iou_and_giou(case["a_cxcywh"][:, None], case["b_cxcywh"][None])
    assert_close(iou, case["iou"], atol=1e-5, rtol=0)
    assert_close(giou, case["giou"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "iteration", "exponent"),
    [("stage1_weighted_cost", 0, 4), ("stage2_high_order_alpha2", 67_500, 2), ("stage2_high_order_alpha4", 67_500, 4)],
)
def test_matching_cost(recorded, name, iteration, exponent):
    inputs, expected = recorded["inputs"], recorded["outputs"]["matcher"][name]
    matcher = RankDetrMatcher(iou_order_alpha=exponent)
    matcher.iteration = iteration
    for image, target in enumerate(inputs["targets"]):
        cost = matcher.cost(inputs["logits"][image], inputs["boxes"][image], target)
        assert_close(cost, expected["cost_per_image"][image], atol=1e-5, rtol=0)
    _assert_same_matches(matcher, inputs, expected["indices"])


@pytest.mark.parametrize("iteration", [67_499, 67_500])
def test_cost_changes_at_the_published_iteration(recorded, iteration):
    matcher = RankDetrMatcher()
    matcher.iteration = iteration
    assert matcher.high_order == (iteration == 67_500)
    indices = recorded["outputs"]["matcher"][f"boundary_iter_{iteration}"]["indices"]
    _assert_same_matches(matcher, recorded["inputs"], indices)


def _assert_same_matches(matcher, inputs, expected):
    matches = matcher(inputs["logits"][None], inputs["boxes"][None], inputs["targets"])[0]
    for pair, wanted in zip(matches, expected):
        for got, want in zip(pair, wanted):
            assert torch.equal(got, want)


@pytest.mark.parametrize("stage", ["stage1_weighted_cost", "stage2_high_order"])
@pytest.mark.parametrize("giou_aware", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_losses_and_gradients(recorded, stage, giou_aware, training):
    inputs = recorded["inputs"]
    expected = recorded["outputs"]["criterion"][f"{stage}|giou_aware={giou_aware}|training={training}"]
    matcher = RankDetrMatcher()
    matcher.iteration = 0 if stage.startswith("stage1") else 67_500
    criterion = RankDetrCriterion(matcher, giou_aware_class_loss=giou_aware).train(training)
    logits, boxes = inputs["logits"].clone().requires_grad_(), inputs["boxes"].clone().requires_grad_()

    losses = criterion.decoder_losses(
        torch.stack([logits.flip(1) * 0.7, logits]), torch.stack([boxes.flip(1), boxes]), inputs["targets"]
    )
    losses.update(criterion.encoder_losses(logits * 0.5 + 0.1, boxes, inputs["targets"]))

    assert losses.keys() == expected["losses"].keys()
    for name, loss in losses.items():
        assert_close(loss, expected["losses"][name], rtol=1e-5, atol=0)
        gradients = torch.autograd.grad(loss, [logits, boxes], retain_graph=True, allow_unused=True)
        for gradient, key in zip(gradients, ("logits", "boxes")):
            wanted = expected["grads"][name][key]
            if wanted is None:
                assert gradient is None
            else:
                assert_close(gradient, wanted, rtol=1e-5, atol=1e-7)
