"""Equality with numbers recorded from the authors' released code, and of the whole with a rendering of its description.

The rendering knows the authors' names, and timm's ConvNeXt, and nothing of this code; its weights are of a formula.
"""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from perception.engine.convert import rename
from projects.unifygeo.aggregator import Aggregator
from projects.unifygeo.converter import AGGREGATOR_RULES, DECODER_RULES, to_authors, to_perception
from projects.unifygeo.decoder import PyramidDecoder
from projects.unifygeo.losses import map_cross_entropy, matching_loss, matching_losses, rerank_loss, retrieval_loss
from projects.unifygeo.network import UnifyGeoNet
from projects.unifygeo.reranking import similarity
from projects.unifygeo.targets import target_maps
from tests.waves import filled, wave

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


def test_whole_network():
    network = UnifyGeoNet(
        dict(encoder_channels=(4, 8, 16), encoder_depths=(1, 1, 1), channels=32),
        dict(
            channels=(32, 16, 8, 4),
            ground_channels=(8, 4, 2, 1),
            ground_size=(2, 4),
            head_channels=(4, 2),
            last_channels=4,
        ),
    )
    weights = filled(to_authors(network.state_dict(prefix="network.")).checkpoint)
    ours = to_perception(weights).checkpoint["state_dict"]
    network.load_state_dict({key.removeprefix("network."): value for key, value in ours.items()})
    ground, satellite = (wave((2, 3, 64, width), phase).requires_grad_() for width, phase in ((128, 1.0), (64, 2.0)))
    targets = torch.zeros(2, 1, 64, 64)
    for sample, row, column, value in ((0, 20, 30, 1.0), (0, 21, 30, 0.5), (1, 40, 7, 1.0), (1, 40, 8, 0.25)):
        targets[sample, 0, row, column] = value

    output = network(ground, satellite)
    losses = (
        retrieval_loss(output.ground, output.satellite, network.logit_scale.exp()),
        map_cross_entropy(output.location.logits, targets),
        matching_losses(output.location.scores, targets, (0, 1, 2, 3), 0.1, 1e-2),
        rerank_loss(output.rerank_descriptors, output.rerank_maps, network.rerank_logit_scale.exp()),
    )
    sum(losses).backward()

    def near(found, expected):
        assert_close(found, torch.tensor(expected), atol=2e-5, rtol=2e-5)

    near(output.ground[1, ::9], [-0.413321, -0.663581, 3.149359, 1.097472])
    near(output.satellite[1, ::9], [-0.97711, 0.434077, -0.989284, 0.660052])
    near(output.location.logits[0, ::997], [0.113514, -0.644544, -0.571349, 0.1945, 0.336426])
    corners = [score[1, 0, 0, 0] for score in output.location.scores]
    near(torch.stack(corners), [-0.158459, -0.187685, 0.040378, 0.877266])
    near(output.rerank_descriptors[0, ::9], [-1.809207, -1.316341, -0.137242, 0.867478])
    near(output.rerank_maps[1, ::9, 0, 1], [0.974777, -1.097456, 0.880585, 0.176719])
    near(torch.stack(losses), [0.69349, 8.103767, 7.612426, 0.700887])
    sums = {
        ground: 14.573009,
        satellite: 226.70329,
        network.satellite.encoder.stem[0].weight: 1059.9996,
        network.decoder.upsamples[0].weight: 455.79385,
    }
    for tensor, total in sums.items():
        assert tensor.grad.abs().sum().item() == pytest.approx(total, rel=1e-4)
