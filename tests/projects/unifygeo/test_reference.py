"""Equality with numbers recorded from the authors' released code."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from perception.engine.convert import rename
from projects.unifygeo.aggregator import Aggregator
from projects.unifygeo.converter import AGGREGATOR_RULES, DECODER_RULES
from projects.unifygeo.decoder import PyramidDecoder
from projects.unifygeo.losses import map_cross_entropy, matching_loss, rerank_loss, retrieval_loss
from projects.unifygeo.reranking import similarity
from projects.unifygeo.targets import target_maps

FOLDER = Path(__file__).parents[2] / "data" / "reference" / "unifygeo"


def load(name):
    return torch.load(FOLDER / f"{name}.pt", weights_only=True)


def converted(state, rules):
    renamed = rename(state, rules, to="ours")
    assert not renamed.unmatched
    return renamed.state


def test_aggregator():
    case = load("soa_gem")
    aggregator = Aggregator(32)
    aggregator.load_state_dict(converted(case["state_dict"], AGGREGATOR_RULES))
    x = case["inputs"]["x"].clone().requires_grad_()

    attended = aggregator.attention(x)
    pooled = aggregator.pool(attended)
    z = aggregator.norm(pooled)
    (z * torch.linspace(-1, 1, 64).view(2, 32)).sum().backward()

    for value, name in ((attended, "soa"), (pooled, "gem"), (z, "z")):
        assert_close(value, case["outputs"][name], atol=1e-5, rtol=0)
    attention = aggregator.attention
    for value, name in (
        (x, "x"),
        (aggregator.pool.p, "gem.p"),
        (attention.v.weight, "block.v.weight"),
        (attention.f[0].weight, "block.f.0.weight"),
    ):
        assert_close(value.grad, case["grads"][name], atol=1e-5, rtol=1e-4)


def small_decoder(state):
    decoder = PyramidDecoder((64, 32, 16, 8), (8, 4, 2, 1), (4, 8), head_channels=(4, 2))
    decoder.load_state_dict(converted(state, DECODER_RULES))
    return decoder


def test_decoder():
    case = load("decoder_small")
    inputs, outputs = case["inputs"], case["outputs"]
    decoder = small_decoder(case["state_dict"]).eval()
    location = decoder(inputs["grd_volume"], inputs["sat_pyramid_coarse_to_fine"])

    assert_close(location.logits[:, :: outputs["logits_every"]], outputs["logits"], atol=1e-5, rtol=0)
    assert_close(location.heatmap((128, 128)).sum((1, 2, 3)), torch.ones(2), atol=1e-5, rtol=0)
    for score, expected in zip(location.scores, outputs["scores"]):
        assert_close(score, expected, atol=1e-5, rtol=0)
    descriptor = decoder.describe(inputs["grd_volume"])
    rerank_map = decoder.normed_map(inputs["sat_pyramid_coarse_to_fine"][0])
    assert_close(descriptor, outputs["grd_descriptor1"], atol=1e-5, rtol=0)
    assert_close(similarity(descriptor, rerank_map).diagonal(), outputs["rerank_score"], atol=1e-5, rtol=0)


def test_decoder_in_training():
    case = load("decoder_small")
    decoder = small_decoder(case["state_dict"]).train()
    volume = case["inputs"]["grd_volume"].clone().requires_grad_()
    location = decoder(volume, case["inputs"]["sat_pyramid_coarse_to_fine"])
    loss = location.logits.square().mean() + sum(score.square().mean() for score in location.scores)
    loss.backward()

    outputs = case["outputs"]
    assert_close(location.logits[:, :: outputs["logits_every"]], outputs["train_logits"], atol=1e-5, rtol=0)
    assert_close(loss, outputs["train_loss"], atol=1e-5, rtol=0)
    assert_close(volume.grad, case["grads"]["grd_volume"], atol=1e-5, rtol=1e-4)
    recorded = case["grads"]["deconv4.weight"]
    assert_close(decoder.upsamples[0].weight.grad[: len(recorded)], recorded, atol=1e-5, rtol=1e-4)


def test_retrieval_loss():
    case = load("losses")["retrieval"]
    ground = case["ground"].clone().requires_grad_()
    loss = retrieval_loss(ground, case["aerial"], case["logit_scale_exp"], case["label_smoothing"])
    loss.backward()
    assert_close(loss, case["loss"], atol=0, rtol=1e-5)
    assert_close(ground.grad, case["grad_ground"], atol=1e-6, rtol=1e-4)
    unsmoothed = retrieval_loss(ground, case["aerial"], case["logit_scale_exp"], 0.0)
    assert_close(unsmoothed, case["loss_no_smoothing"], atol=0, rtol=1e-5)


@pytest.fixture(scope="module")
def losses():
    return load("losses")


@pytest.fixture(scope="module")
def targets(losses):
    offsets = torch.tensor([[case["delta_row_640"], case["delta_col_640"]] for case in losses["gt_cases"]])
    return target_maps(offsets)


def test_targets(losses, targets):
    for case, target in zip(losses["gt_cases"], targets[:, 0], strict=True):
        assert divmod(int(target.argmax()), 384) == tuple(case["argmax_rc"])
        assert target.sum().item() == pytest.approx(case["sum"], rel=1e-5)
        assert target.max().item() == pytest.approx(case["max"], rel=1e-6)
        assert int((target > 1e-2).sum()) == case["n_gt_1e-2"]
    crop = losses["gt_map_case1_crop"]
    row, column = crop["origin_rc"]
    height, width = crop["map"].shape
    found = targets[crop["case"], 0, row : row + height, column : column + width]
    assert_close(found, crop["map"], atol=1e-6, rtol=1e-5)


def test_matching_and_localisation_losses(losses, targets):
    case = losses["match"]
    for scores, expected in zip(case["scores_l1_l2_l3"], case["losses_l1_l2_l3_l4"]):
        assert matching_loss(scores, targets).item() == pytest.approx(expected, rel=1e-5)
    logits = torch.randn(5, 384 * 384, generator=torch.Generator().manual_seed(77))
    assert map_cross_entropy(logits, targets).item() == pytest.approx(losses["map_ce"]["loss"], rel=1e-5)


def test_rerank_loss(losses):
    case = losses["rerank_decision"]
    ground = case["ground_desc"].clone().requires_grad_()
    assert_close(similarity(ground, case["sat_map"]), case["sim"], atol=1e-6, rtol=1e-5)
    loss = rerank_loss(ground, case["sat_map"], case["scale"])
    loss.backward()
    assert_close(loss, case["loss"], atol=0, rtol=1e-5)
    assert_close(ground.grad, case["grad_ground"], atol=1e-6, rtol=1e-4)
