"""Mask2Former's pixel decoder with FreqFusion."""

import pytest
import torch
import torch.nn.functional as F
from mmdet.models.layers import MSDeformAttnPixelDecoder
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from torch import nn

from projects.freqfusion.fusion import FreqFusion
from projects.freqfusion.pixel_decoder import FreqAwareMSDeformAttnPixelDecoder

CHANNELS = [8, 16, 24, 32]


def settings(channels=CHANNELS, width=32, **changes):
    encoder = dict(
        num_layers=2,
        layer_cfg=dict(
            self_attn_cfg=dict(
                embed_dims=width, num_heads=4, num_levels=3, num_points=2, dropout=0.0, batch_first=True
            ),
            ffn_cfg=dict(embed_dims=width, feedforward_channels=64, num_fcs=2, ffn_drop=0.0),
        ),
    )
    return ConfigDict(
        in_channels=channels,
        strides=[4, 8, 16, 32],
        feat_channels=width,
        out_channels=width,
        norm_cfg=dict(type="GN", num_groups=8),
        encoder=encoder,
        positional_encoding=dict(num_feats=width // 2, normalize=True),
        **changes,
    )


def maps(height=32, width=48):
    return [torch.randn(2, c, height >> i, width >> i) for i, c in enumerate(CHANNELS)]


class Stock(nn.Module):
    """In place of a fusion: what mmdet does where the two maps meet."""

    def __init__(self, adds: bool):
        super().__init__()
        self.adds = adds

    def forward(self, shallow, deep):
        resized = F.interpolate(deep, shallow.shape[2:], mode="bilinear", align_corners=False)
        return None, shallow, resized if self.adds else torch.zeros_like(shallow)


def test_it_can_compute_again_instead_of_keeping(monkeypatch):
    calls, fuse = [], FreqFusion._fuse
    monkeypatch.setattr(FreqFusion, "_fuse", lambda *args: calls.append(1) or fuse(*args))
    decoder = FreqAwareMSDeformAttnPixelDecoder(**settings(), freq_fusion=dict(checkpointing=True))
    mask, _ = decoder(maps())
    mask.square().mean().backward()
    assert len(calls) == 2 * 3


def test_without_fusions_it_is_the_stock_decoder():
    decoder, stock = FreqAwareMSDeformAttnPixelDecoder(**settings()), MSDeformAttnPixelDecoder(**settings())
    stock.init_weights()
    decoder.freqfusions = nn.ModuleList([Stock(False), Stock(False), Stock(True)])
    decoder.load_state_dict(stock.state_dict())
    inputs = maps()
    mask, outs = decoder(inputs)
    expected_mask, expected_outs = stock(inputs)
    torch.testing.assert_close(mask, expected_mask, atol=1e-5, rtol=1e-5)
    assert len(outs) == 3
    for a, b in zip(outs, expected_outs):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_fusions():
    kind = "mmdet.FreqAwareMSDeformAttnPixelDecoder"
    decoder = MODELS.build(dict(type=kind, compress_ratio=4, **settings()))
    decoder.init_weights()
    assert all(f.content_encoder.weight.std() < 0.002 for f in decoder.freqfusions)
    order = []
    for number, fusion in enumerate(decoder.freqfusions):
        fusion.register_forward_hook(lambda module, args, out, n=number: order.append((n, args[0].shape[2])))
    inputs = [x.requires_grad_() for x in maps()]
    mask, outs = decoder(inputs)
    assert order == [(0, 8), (1, 16), (2, 32)]  # from stride 32 into 16, 16 into 8, 8 into 4
    assert mask.shape == (2, 32, 32, 48)
    assert [tuple(x.shape[2:]) for x in outs] == [(4, 6), (8, 12), (16, 24)]
    (mask.square().mean() + sum(x.square().mean() for x in outs)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in decoder.parameters())
    assert all(x.grad.abs().sum() > 0 for x in inputs)
    with pytest.raises(ValueError, match="exactly twice as large"):
        decoder([*inputs[:3], torch.randn(2, 32, 5, 6)])


def test_runs_in_float32_under_autocast_and_in_double_precision():
    decoder = FreqAwareMSDeformAttnPixelDecoder(compress_ratio=4, **settings())
    inputs = maps()
    expected, _ = decoder(inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mask, outs = decoder([x.bfloat16() for x in inputs])
    assert mask.dtype == outs[0].dtype == torch.float32
    torch.testing.assert_close(mask, expected, atol=0.05, rtol=0.1)
    mask, outs = decoder.double()([x.double() for x in inputs])
    assert mask.dtype == outs[0].dtype == torch.float64
    torch.testing.assert_close(mask.float(), expected, atol=1e-4, rtol=1e-4)


def test_published_size():
    """Three fusions of 104 434 parameters more than mmdet's, under the authors' names."""
    with torch.device("meta"):
        wide = settings([256, 512, 1024, 2048], 256)
        decoder, stock = FreqAwareMSDeformAttnPixelDecoder(**wide), MSDeformAttnPixelDecoder(**wide)
    count = [sum(p.numel() for p in module.parameters()) for module in (decoder, stock)]
    assert count[0] - count[1] == 3 * 104_434
    added = set(decoder.state_dict()) - set(stock.state_dict())
    assert {key.split(".")[0] for key in added} == {"freqfusions"}
    assert tuple(decoder.freqfusions[0].hamming_lowpass.shape) == (1,)
    assert "freqfusions.2.dysampler.offset.weight" in added
    assert not any("dysampler.norm" in key for key in added)
