"""Regions are enlarged before they are assigned to a level and pooled."""

import mmcv.ops
import torch
from mmrotate.registry import MODELS

from projects.arc.extractor import ExtendedRotatedRoIExtractor

SETTINGS = dict(
    roi_layer=dict(type="RoIAlignRotated", out_size=7, sample_num=2, clockwise=True),
    out_channels=4,
    featmap_strides=[4, 8],
)


def test_extended_regions():
    extractor = MODELS.build(dict(type="mmrotate.ExtendedRotatedRoIExtractor", **SETTINGS))
    plain = MODELS.build(dict(type="mmrotate.RotatedSingleRoIExtractor", **SETTINGS))
    assert isinstance(extractor, ExtendedRotatedRoIExtractor)
    maps = [torch.randn(1, 4, 64, 64), torch.randn(1, 4, 32, 32)]
    # The second becomes large enough for the second level only by being enlarged: sqrt(100 * 1.2 * 100 * 1.4) > 112.
    rois = torch.tensor([[0.0, 100, 90, 40, 20, 0.3], [0, 120, 130, 100, 100, -0.5]])
    larger = rois * torch.tensor([1, 1, 1, 1.2, 1.4, 1])
    pooled = extractor(maps, rois)
    torch.testing.assert_close(pooled, plain(maps, larger))
    by_hand = mmcv.ops.RoIAlignRotated(7, 1 / 8, 2, clockwise=True)(maps[1], larger[1:])
    torch.testing.assert_close(pooled[1:], by_hand)
    assert not torch.allclose(plain(maps, rois)[1:], by_hand)
    assert extractor(maps, rois[:0]).shape == (0, 4, 7, 7)
    unchanged = ExtendedRotatedRoIExtractor(**SETTINGS, extend_factor=(1, 1))
    torch.testing.assert_close(unchanged(maps, rois), plain(maps, rois))
