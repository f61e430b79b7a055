"""The network of the published size, and laws that hold for any size."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from perception.engine.convert import rename
from projects.unifygeo.aggregator import Aggregator, SecondOrderAttention
from projects.unifygeo.converter import encoder_rules
from projects.unifygeo.decoder import PyramidDecoder
from projects.unifygeo.encoder import ConvNeXtEncoder
from projects.unifygeo.losses import map_cross_entropy, matching_loss, rerank_loss, retrieval_loss
from projects.unifygeo.model import UnifyGeo
from projects.unifygeo.network import UnifyGeoNet, View

SMALL = dict(
    view=dict(encoder_channels=(8, 16, 32), encoder_depths=(1, 1, 2), channels=64),
    decoder=dict(channels=(64, 32, 16, 8), ground_channels=(16, 8, 4, 2), ground_size=(2, 4), head_channels=(8, 4)),
)


def test_published_size():
    with torch.device("meta"):
        state = UnifyGeoNet().state_dict()
    assert len(state) == 457
    assert sum(value.numel() for value in state.values()) == 57_700_330
    counts = {
        part: (len(some), sum(value.numel() for value in some))
        for part in ("ground.encoder", "ground.local_head", "ground.global_head", "ground.aggregator", "decoder")
        if (some := [value for key, value in state.items() if key.startswith(part + ".")])
    }
    assert counts["ground.encoder"] == (147, 12_348_000)
    assert counts["ground.local_head"] == (13, 5_944_320)
    assert counts["ground.global_head"][1] + counts["ground.aggregator"][1] == 7_128_961
    assert counts["decoder"] == (79, 6_856_305 + 1461)  # with batch norm's buffers


def test_encoder_is_timms():
    theirs = timm.create_model("convnext_tiny", pretrained=False, features_only=True, out_indices=(0, 1, 2)).eval()
    torch.manual_seed(0)
    state = {f"x.{key}": torch.randn_like(value) * 0.05 for key, value in theirs.state_dict().items()}
    theirs.load_state_dict({key[2:]: value for key, value in state.items()})
    renamed = rename(state, encoder_rules("x", "encoder"), to="ours")
    assert not renamed.unmatched
    ours = ConvNeXtEncoder().eval()
    ours.load_state_dict({key.removeprefix("encoder."): value for key, value in renamed.state.items()})
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        for found, expected in zip(ours(images), theirs(images), strict=True):
            assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_attention_starts_as_the_identity():
    x = torch.randn(2, 16, 3, 5)
    assert_close(SecondOrderAttention(16)(x), x)


def test_pair_is_the_sum_of_its_parts():
    torch.manual_seed(0)
    network = UnifyGeoNet(**SMALL).eval()
    ground, satellite = torch.randn(2, 3, 64, 128), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        output = network(ground, satellite)
        assert_close(network.describe(ground), output.ground)
        assert_close(network.describe(satellite), output.satellite)
        assert_close(network.describe(satellite, "satellite"), output.satellite)
        assert_close(network.rerank_descriptors(ground), output.rerank_descriptors)
        assert_close(network.rerank_maps(satellite), output.rerank_maps)
        assert_close(network.locate(ground, satellite).logits, output.location.logits)
        assert_close(network.decoder(output.ground_volume, output.satellite_maps).logits, output.location.logits)
    assert output.location.logits.shape == (2, 64 * 64)
    assert [score.shape[-1] for score in output.location.scores] == [2, 4, 8, 16]
    assert all(score.abs().max() <= 1 + 1e-6 for score in output.location.scores)
    assert_close(output.location.heatmap((64, 64)).sum((1, 2, 3)), torch.ones(2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("sharing", ["head", "none"])
def test_sharing(sharing):
    torch.manual_seed(0)
    published, other = View(**SMALL["view"]), View(**SMALL["view"], sharing=sharing)
    count = {name: sum(p.numel() for p in view.parameters()) for name, view in (("ours", published), ("other", other))}
    head = sum(p.numel() for p in published.local_head.parameters())
    encoder = sum(p.numel() for p in published.encoder.parameters())
    assert count["other"] - count["ours"] == {"head": -head, "none": encoder}[sharing]
    images = torch.randn(1, 3, 64, 64)
    descriptor, maps = other(images)
    assert_close(descriptor, other.describe(images))
    for found, expected in zip(maps, other.locate(images), strict=True):
        assert_close(found, expected)


def test_losses_keep_double_precision():
    torch.manual_seed(0)
    ground, satellite = (torch.randn(3, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    maps = torch.randn(3, 8, 2, 3, dtype=torch.float64, requires_grad=True)
    scores = torch.randn(3, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(3, 64, dtype=torch.float64, requires_grad=True)
    target = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    scale = torch.tensor(5.0, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda g, s: retrieval_loss(g, s, scale), (ground, satellite))
    assert torch.autograd.gradcheck(lambda g, m: rerank_loss(g, m, scale), (ground, maps))
    assert torch.autograd.gradcheck(lambda s: matching_loss(s, target), scores)
    assert torch.autograd.gradcheck(lambda x: map_cross_entropy(x, target), logits)


@pytest.mark.parametrize("kind", ["gem", "avg"])
def test_simpler_aggregators(kind):
    x = torch.rand(2, 8, 3, 3) + 0.1
    aggregator = Aggregator(8, kind, norm=False)
    expected = x.pow(3).mean((2, 3)).pow(1 / 3) if kind == "gem" else x.mean((2, 3))
    assert_close(aggregator(x), expected)


def test_decoder_without_its_norms():
    """Released options. Batch norms that change nothing but add a bias leave what a decoder without them gives."""
    torch.manual_seed(0)
    settings = dict(channels=(64, 32, 16, 8), ground_channels=(8, 4, 2, 1), ground_size=(4, 8), head_channels=(4, 2))
    plain = PyramidDecoder(**settings, batch_norm=False, match_norm=False).eval()
    normed = PyramidDecoder(**settings, match_norm=False).eval()
    weights = dict(plain.state_dict())
    for part in ("fusions.0", "fusions.1", "fusions.2", "head"):
        channels = len(weights[f"{part}.0.weight"])
        weights |= {f"{part}.3.{name}": weights.pop(f"{part}.2.{name}") for name in ("weight", "bias")}
        weights[f"{part}.1.weight"], weights[f"{part}.1.running_mean"] = torch.ones(channels), torch.zeros(channels)
        weights[f"{part}.1.running_var"] = torch.full((channels,), 1 - 1e-6)
        weights[f"{part}.0.bias"] += torch.randn(channels)
        plain.state_dict()[f"{part}.0.bias"].copy_(weights[f"{part}.0.bias"])
        weights[f"{part}.1.bias"] = weights.pop(f"{part}.0.bias")
        weights[f"{part}.1.num_batches_tracked"] = torch.tensor(0)
    normed.load_state_dict(weights)
    volume, pyramid = torch.randn(2, 64, 4, 8), [torch.randn(2, 64 >> k, 4 << k, 4 << k) for k in range(4)]
    found, expected = plain(volume, pyramid), normed(volume, pyramid)
    assert_close(found.logits, expected.logits, atol=1e-5, rtol=1e-5)
    raw = plain.descriptors[0](volume)
    assert_close(plain.describe(volume), raw)
    assert_close(found.scores[0][:, 0], F.cosine_similarity(raw[:, :, None, None], pyramid[0], dim=1))


@pytest.mark.parametrize("norm", ["LN", "BN", None])
def test_norms_of_the_attention(norm):
    attention = SecondOrderAttention(8, 2, norm).train()
    torch.nn.init.normal_(attention.v.weight)
    x = torch.randn(3, 8, 4, 5)

    def described(layer):
        y = layer[0](x)
        axes = {"LN": (1,), "BN": (0, 2, 3), None: ()}[norm]
        if axes:
            y = (y - y.mean(axes, keepdim=True)) / (y.var(axes, correction=0, keepdim=True) + 1e-6).sqrt()
        return y.relu().flatten(2)

    weights = (described(attention.f).mT @ described(attention.g) / 2).softmax(-1)
    expected = attention.v((attention.h(x).flatten(2) @ weights.mT).view(3, 4, 4, 5)) + x
    assert_close(attention(x), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="'GN'"):
        SecondOrderAttention(8, 2, "GN")


def test_wrong_sizes():
    with pytest.raises(ValueError, match="4 columns of 8 channels do not match maps of 64"):
        UnifyGeoNet(SMALL["view"], {**SMALL["decoder"], "ground_channels": (8, 8, 4, 2)})
    with pytest.raises(ValueError, match="must have 2 x 4 cells for these weights, got 3 x 4"):
        UnifyGeoNet(**SMALL).rerank_descriptors(torch.zeros(1, 3, 96, 128))
    with pytest.raises(ValueError, match="view must be one of ground, satellite"):
        UnifyGeoNet(**SMALL).describe(torch.zeros(1, 3, 64, 64), "aerial")
    with pytest.raises(ValueError, match="sharing must be one of"):
        View(**SMALL["view"], sharing="all")
    with pytest.raises(ValueError, match="aggregator must be one of"):
        Aggregator(8, "netvlad")
    with pytest.raises(ValueError, match="a reduction of 16 leaves no channels of 8"):
        SecondOrderAttention(8, 16)
    with pytest.raises(ValueError, match="3 stages need as many depths, got 2"):
        ConvNeXtEncoder((8, 16, 32), (1, 1))
    with pytest.raises(ValueError, match="4 levels need as many ground_channels, got 3"):
        UnifyGeoNet(SMALL["view"], {**SMALL["decoder"], "ground_channels": (16, 8, 4)})
    with pytest.raises(ValueError, match="head_channels needs two numbers, got 3"):
        UnifyGeoNet(SMALL["view"], {**SMALL["decoder"], "head_channels": (8, 4, 2)})
    with pytest.raises(ValueError, match=r"maps of \(64, 32, 24, 8\) channels, but the decoder's channels are "):
        UnifyGeoNet({**SMALL["view"], "encoder_channels": (8, 24, 32)}, SMALL["decoder"])
    with pytest.raises(ValueError, match=r"sides of the tile's maps must double .* multiples of 32"):
        UnifyGeoNet(**SMALL)(torch.zeros(1, 3, 64, 128), torch.zeros(1, 3, 100, 100))
    with pytest.raises(ValueError, match="takes maps of 4 levels, got 2"):
        UnifyGeoNet(**SMALL).decoder(torch.zeros(1, 64, 2, 4), [torch.zeros(1, 64, 2, 2)] * 2)
    with pytest.raises(ValueError, match=r"match_levels must be of 0 to 3, got \(1, 4\)"):
        UnifyGeo(SMALL, match_levels=(1, 4))
    with pytest.raises(ValueError, match="targets of 100 pixels do not divide into 12 cells"):
        matching_loss(torch.zeros(1, 1, 12, 12), torch.ones(1, 1, 100, 100))
