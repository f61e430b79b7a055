"""Heads for semantic segmentation with FreqFusion, registered with mmseg."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from mmseg.models.decode_heads import LightHamHead, SegformerHead, UPerHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from .fusion import FreqFusion
from .pyramid import add_top_down, adding_fusions, join_top_down, joining_fusions

# What the released SegNeXt uses: offsets from similarities alone, in four groups, and no Hamming window.
SEGNEXT = dict(feature_resample=True, feature_resample_group=4, direction_feat="sim", hamming_window=False)


class _FreqAware(BaseDecodeHead):
    """A head whose fusions start as FreqFusion does, not as mmseg initialises convolutions."""

    def init_weights(self) -> None:
        super().init_weights()
        for module in self.modules():
            if isinstance(module, FreqFusion):
                module.init_weights()


@MODELS.register_module()
class LightHamHeadFreqAware(_FreqAware, LightHamHead):
    """mmseg's ``LightHamHead`` whose maps are joined by FreqFusion instead of being resized.

    Args:
        compress_ratio: of the fusions. (8 leaves SegNeXt-T a number of channels that cannot be normalised.)
        freq_fusion: other settings of :class:`~projects.freqfusion.fusion.FreqFusion`; default: :data:`SEGNEXT`.
        low2high_residual: add the upsampled map of the level above, projected, to each sharpened one, and join channels
            without regard to groups. (An option of the released head that no released configuration uses.)
        **kwargs: of ``LightHamHead``.
    """

    def __init__(
        self,
        compress_ratio: int = 4,
        freq_fusion: dict | None = None,
        low2high_residual: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.freqfusions = joining_fusions(self.in_channels, compress_ratio, **{**SEGNEXT, **(freq_fusion or {})})
        self.low2high_residual = low2high_residual
        if low2high_residual:
            pairs = itertools.pairwise(reversed(self.in_channels))
            self.low2high_convs = nn.ModuleList(nn.Conv2d(deep, shallow, 1) for deep, shallow in pairs)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Logits (B, num_classes, H, W) at the size of the first map."""
        maps = self._transform_inputs(inputs)
        joined = self._join_residual(maps) if self.low2high_residual else join_top_down(maps, self.freqfusions)
        return self.cls_seg(self.align(self.hamburger(self.squeeze(joined))))

    def _join_residual(self, maps: Sequence[Tensor]) -> Tensor:
        joined = maps[-1]
        for shallow, fusion, conv in zip(reversed(maps[:-1]), self.freqfusions, self.low2high_convs):
            _, shallow, deep = fusion(shallow, joined)
            # The level above lies first among the joined channels.
            joined = torch.cat([shallow + conv(deep[:, : conv.in_channels]), deep], 1)
        return joined


@MODELS.register_module()
class SegformerHeadFreqAware(_FreqAware, SegformerHead):
    """mmseg's ``SegformerHead`` whose projected maps are joined by FreqFusion instead of being resized.

    The authors have released no such head; they name this scheme, and compression by 8, in their issues 16 and 35.

    Args:
        compress_ratio: of the fusions.
        freq_fusion: other settings of :class:`~projects.freqfusion.fusion.FreqFusion`; default: :data:`SEGNEXT`.
        **kwargs: of ``SegformerHead``.
    """

    def __init__(self, compress_ratio: int = 8, freq_fusion: dict | None = None, **kwargs):
        super().__init__(**kwargs)
        channels = [self.channels] * len(self.in_channels)
        self.freqfusions = joining_fusions(channels, compress_ratio, **{**SEGNEXT, **(freq_fusion or {})})

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Logits (B, num_classes, H, W) at the size of the first map."""
        maps = [conv(x) for conv, x in zip(self.convs, self._transform_inputs(inputs))]
        return self.cls_seg(self.fusion_conv(join_top_down(maps, self.freqfusions)))


@MODELS.register_module()
class UPerHeadFreqAware(_FreqAware, UPerHead):
    """mmseg's ``UPerHead`` with FreqFusion where levels meet: in its pyramid, and where all of them are joined.

    Args:
        compress_ratio: of the fusions.
        freq_fusion: other settings of :class:`~projects.freqfusion.fusion.FreqFusion`; default: offsets in four groups
            as in the authors' pyramids for detection.
        **kwargs: of ``UPerHead``.
    """

    def __init__(self, compress_ratio: int = 8, freq_fusion: dict | None = None, **kwargs):
        super().__init__(**kwargs)
        settings = {**dict(feature_resample=True, feature_resample_group=4), **(freq_fusion or {})}
        channels = [self.channels] * len(self.in_channels)
        self.alignment = adding_fusions(channels, compress_ratio, **settings)
        self.freqfusions = joining_fusions(channels, compress_ratio, **settings)

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        """The map (B, channels, H, W) before classification."""
        inputs = self._transform_inputs(inputs)
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, inputs)] + [self.psp_forward(inputs)]
        *fused, deepest = add_top_down(laterals, self.alignment)
        maps = [conv(x) for conv, x in zip(self.fpn_convs, fused)] + [deepest]
        return self.fpn_bottleneck(join_top_down(maps, self.freqfusions))
