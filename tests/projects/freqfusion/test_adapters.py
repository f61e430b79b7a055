"""The pyramid hook, the neck for mmdet and the head for mmseg."""

import pytest
import torch
from mmdet.registry import MODELS as DETECTORS
from mmengine.registry import DefaultScope
from mmseg.models.decode_heads import LightHamHead, SegformerHead, UPerHead
from mmseg.registry import MODELS as SEGMENTERS

from projects.freqfusion.fusion import FreqFusion
from projects.freqfusion.head import LightHamHeadFreqAware, SegformerHeadFreqAware, UPerHeadFreqAware
from projects.freqfusion.neck import FreqFusionFPN
from projects.freqfusion.pyramid import FreqFusionPyramid

PUBLISHED = [256, 512, 1024, 2048]


def maps(channels, height, width, batch=2):
    return [torch.randn(batch, c, height >> i, width >> i) for i, c in enumerate(channels)]


def test_published_size_of_the_neck():
    with torch.device("meta"):
        neck = FreqFusionFPN(PUBLISHED, 256, 5)
    assert sum(p.numel() for p in neck.parameters()) == 9_072_072
    keys = set(neck.state_dict())
    assert {"lateral_convs.4.conv.weight", "fpn_convs.0.conv.bias", "alignment.3.dysampler.init_pos"} <= keys


def test_neck():
    neck = DETECTORS.build(dict(type="mmdet.FreqFusionFPN", in_channels=[8, 16, 24, 32], out_channels=32, num_outs=5))
    neck.init_weights()
    assert neck.alignment[0].content_encoder.weight.std() < 0.002
    inputs = [x.requires_grad_() for x in maps([8, 16, 24, 32], 32, 48)]
    outputs = neck(inputs)
    assert [tuple(x.shape[2:]) for x in outputs] == [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
    sum(x.square().mean() for x in outputs).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in neck.parameters())
    assert inputs[-1].grad.abs().sum() > 0
    with pytest.raises(ValueError, match="exactly twice as large"):
        neck([*maps([8, 16, 24, 32], 24, 48)[:3], torch.randn(2, 32, 3, 6)])
    with pytest.raises(ValueError, match="built for 4 maps, got 3"):
        neck(inputs[:3])
    with pytest.raises(ValueError, match="num_outs must be at least"):
        FreqFusionFPN([8, 16], 32, 1)


def test_neck_of_some_levels():
    options = dict(end_level=1, act_cfg=dict(type="ReLU"), order=("act", "conv", "norm"))
    neck = FreqFusionFPN([8, 16, 24], 32, 2, **options)
    inputs = maps([8, 16, 24], 16, 24)
    laterals = [neck.lateral_convs[i].conv(inputs[i].relu()) for i in range(2)]
    _, shallow, deep = neck.alignment[0](*laterals)
    outputs = neck(inputs)
    assert len(outputs) == 2
    torch.testing.assert_close(outputs[0], neck.fpn_convs[0].conv((shallow + deep).relu()))
    torch.testing.assert_close(outputs[1], neck.fpn_convs[1].conv(laterals[1].relu()))
    with pytest.raises(ValueError, match="end_level=1 there are 2 outputs, not 3"):
        FreqFusionFPN([8, 16, 24], 32, 3, end_level=1)


def test_neck_reads_the_fusion_that_authors_do_not_use():
    """They make one for every map, also where none lies above it."""
    neck = FreqFusionFPN([8, 16], 32, 2)
    state = neck.state_dict()
    extra = {key.replace(".0.", ".1.", 1): value for key, value in state.items() if key.startswith("alignment.0.")}
    assert extra
    FreqFusionFPN([8, 16], 32, 2).load_state_dict({**state, **extra})
    with pytest.raises(RuntimeError, match="Missing key"):
        FreqFusionFPN([8, 16], 32, 3).load_state_dict({**state, **extra})


def test_neck_for_sizes_that_are_no_multiples():
    neck = FreqFusionFPN([8, 16], 32, 4, start_level=0, sizes="pad")
    outputs = neck([torch.randn(1, 8, 26, 22), torch.randn(1, 16, 13, 11)])
    assert [tuple(x.shape[2:]) for x in outputs] == [(26, 22), (13, 11), (7, 6), (4, 3)]
    assert [tuple(x.shape[2:]) for x in FreqFusionFPN([4, 8, 16], 32, 2, start_level=1)(maps([4, 8, 16], 16, 16))] == [
        (8, 8),
        (4, 4),
    ]


def count_fusions(monkeypatch):
    """A list that grows by one with every computation of a fusion."""
    calls, fuse = [], FreqFusion._fuse
    monkeypatch.setattr(FreqFusion, "_fuse", lambda *args: calls.append(1) or fuse(*args))
    return calls


def test_neck_can_compute_again_instead_of_keeping(monkeypatch):
    calls = count_fusions(monkeypatch)
    for checkpointing, expected in ((False, 3), (True, 6)):
        neck = FreqFusionFPN([8, 16, 24, 32], 32, 4, checkpointing=checkpointing)
        outputs = neck(maps([8, 16, 24, 32], 16, 16))
        sum(x.square().mean() for x in outputs).backward()
        assert len(calls) == expected
        assert all(p.grad is not None for p in neck.parameters())
        calls.clear()


def head_settings(**changes):
    return dict(
        in_channels=[64, 160, 256],
        in_index=[1, 2, 3],
        channels=256,
        ham_channels=256,
        num_classes=150,
        norm_cfg=dict(type="GN", num_groups=32),
        align_corners=False,
        ham_kwargs=dict(MD_R=16),
        **changes,
    )


@pytest.fixture
def _mmseg_names():
    """Parts of a head that are named by strings are mmseg's, whatever scope other tests have left."""
    with DefaultScope.overwrite_default_scope("mmseg"):
        yield


@pytest.mark.usefixtures("_mmseg_names")
def test_heads_can_compute_again_instead_of_keeping(monkeypatch):
    calls = count_fusions(monkeypatch)
    small = dict(in_channels=[16, 16, 32], in_index=[0, 1, 2], channels=16, num_classes=3, align_corners=False)
    norm = dict(norm_cfg=dict(type="GN", num_groups=8), freq_fusion=dict(checkpointing=True))
    ham = dict(ham_channels=16, ham_kwargs=dict(MD_R=4), compress_ratio=2)
    for kind, options, fusions in (
        (LightHamHeadFreqAware, ham, 2),
        (SegformerHeadFreqAware, dict(compress_ratio=2), 2),
        (UPerHeadFreqAware, dict(compress_ratio=2, pool_scales=(1, 2)), 4),
    ):
        head = kind(**small, **norm, **options)
        head(maps([16, 16, 32], 16, 16)).square().mean().backward()
        assert len(calls) == 2 * fusions
        calls.clear()


@pytest.mark.usefixtures("_mmseg_names")
def test_head():
    head = SEGMENTERS.build(dict(type="mmseg.LightHamHeadFreqAware", **head_settings()))
    head.init_weights()
    sizes = [sum(p.numel() for p in fusion.parameters()) for fusion in head.freqfusions]
    assert sizes == [116_146, 141_234]
    plain = LightHamHead(**head_settings())
    added = sum(p.numel() for p in head.parameters()) - sum(p.numel() for p in plain.parameters())
    assert added == sum(sizes)
    inputs = maps([32, 64, 160, 256], 32, 32, 1)
    logits = head(inputs)
    assert logits.shape == (1, 150, 16, 16)
    logits.square().mean().backward()
    assert all(p.grad is not None for p in head.freqfusions.parameters())
    assert isinstance(head, LightHamHeadFreqAware)


@pytest.mark.usefixtures("_mmseg_names")
def test_head_with_residuals():
    head = LightHamHeadFreqAware(low2high_residual=True, **head_settings())
    inputs = maps([32, 64, 160, 256], 32, 32, 1)
    joined = inputs[3]
    for step, shallow in enumerate((inputs[2], inputs[1])):
        _, shallow, joined = head.freqfusions[step](shallow, joined)
        above = joined[:, : (256, 160)[step]]
        joined = torch.cat([shallow + head.low2high_convs[step](above), joined], 1)
    torch.testing.assert_close(head._join_residual(inputs[1:]), joined)
    logits = head(inputs)
    assert logits.shape == (1, 150, 16, 16)
    logits.square().mean().backward()
    assert all(p.grad is not None for p in head.low2high_convs.parameters())


@pytest.mark.usefixtures("_mmseg_names")
@pytest.mark.parametrize(
    ("kind", "stock", "compressed"),
    [
        # The scheme that the authors name for SegFormer: the deep map grows by one map's channels at a time.
        (SegformerHeadFreqAware, SegformerHead, dict(freqfusions=[16, 24, 32])),
        (UPerHeadFreqAware, UPerHead, dict(alignment=[16] * 3, freqfusions=[16, 24, 32])),
    ],
)
def test_heads_for_four_maps(kind, stock, compressed):
    options = dict(
        in_channels=[8, 16, 24, 32],
        in_index=[0, 1, 2, 3],
        channels=64,
        num_classes=5,
        norm_cfg=dict(type="GN", num_groups=8),
        align_corners=False,
    )
    head = SEGMENTERS.build(dict(type=f"mmseg.{kind.__name__}", **options))
    head.init_weights()
    plain, added = stock(**options), 0
    for name, channels in compressed.items():
        fusions = getattr(head, name)
        assert [f.content_encoder.in_channels for f in fusions] == channels
        assert all(f.content_encoder.weight.std() < 0.002 for f in fusions)
        added += sum(p.numel() for p in fusions.parameters())
    assert sum(p.numel() for p in head.parameters()) == sum(p.numel() for p in plain.parameters()) + added
    inputs = maps([8, 16, 24, 32], 32, 48)
    logits = head(inputs)
    assert logits.shape == plain(inputs).shape == (2, 5, 32, 48)
    logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for n, p in head.named_parameters() if "aux" not in n)
    with pytest.raises(ValueError, match="exactly twice as large"):
        head([*inputs[:3], torch.randn(2, 32, 5, 6)])


def test_joined_channels_interleave_by_group():
    """Groups of both maps lie side by side, as the published weights of the next layer expect."""
    pyramid = FreqFusionPyramid([4, 8], "join", 1, feature_resample=True, feature_resample_group=4)
    fusion = pyramid.fusions[0]
    shallow, deep = torch.randn(1, 4, 8, 8), torch.randn(1, 8, 4, 4)
    joined = pyramid([shallow, deep])
    _, hr, lr = fusion(shallow, deep)
    order = []
    for group in range(4):
        order += [hr[:, group : group + 1], lr[:, 2 * group : 2 * group + 2]]
    torch.testing.assert_close(joined, torch.cat(order, 1))
    plain = FreqFusionPyramid([4, 8], "join", 1)
    _, hr, lr = plain.fusions[0](shallow, deep)
    torch.testing.assert_close(plain([shallow, deep]), torch.cat([hr, lr], 1))


def test_hook_for_any_pyramid():
    pyramid = FreqFusionPyramid([16] * 3, feature_resample=True, compress_ratio=2)
    outputs = pyramid(maps([16] * 3, 16, 24))
    assert [tuple(x.shape[2:]) for x in outputs] == [(16, 24), (8, 12), (4, 6)]
    segformer = FreqFusionPyramid([32] * 4, "join", 4)  # the scheme that the authors name for SegFormer
    assert [f.lr_channel_compressor.in_channels for f in segformer.fusions] == [32, 64, 96]
    assert segformer(maps([32] * 4, 32, 32)).shape == (2, 128, 32, 32)
    with pytest.raises(ValueError, match="equal channels"):
        FreqFusionPyramid([8, 16])
    with pytest.raises(ValueError, match="mode must be"):
        FreqFusionPyramid([8, 8], "concat")
