"""SegNeXt's head with FreqFusion, registered with mmseg."""

from __future__ import annotations

from collections.abc import Sequence

from mmseg.models.decode_heads import LightHamHead
from mmseg.registry import MODELS
from torch import Tensor

from .pyramid import join_top_down, joining_fusions


@MODELS.register_module()
class LightHamHeadFreqAware(LightHamHead):
    """mmseg's ``LightHamHead`` whose maps are joined by FreqFusion instead of being resized.

    Args:
        compress_ratio: of the fusions. (8 leaves SegNeXt-T a number of channels that cannot be normalised.)
        freq_fusion: other settings of :class:`~projects.freqfusion.fusion.FreqFusion`. By default those of the released
            SegNeXt: offsets from similarities alone, in four groups, and no Hamming window.
        **kwargs: of ``LightHamHead``.
    """

    def __init__(self, compress_ratio: int = 4, freq_fusion: dict | None = None, **kwargs):
        super().__init__(**kwargs)
        settings = dict(feature_resample=True, feature_resample_group=4, direction_feat="sim", hamming_window=False)
        self.freqfusions = joining_fusions(self.in_channels, compress_ratio, **{**settings, **(freq_fusion or {})})

    def init_weights(self) -> None:
        """As mmseg's; the fusions start as FreqFusion does."""
        super().init_weights()
        for fusion in self.freqfusions:
            fusion.init_weights()

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Logits (B, num_classes, H, W) at the size of the first map."""
        joined = join_top_down(self._transform_inputs(inputs), self.freqfusions)
        return self.cls_seg(self.align(self.hamburger(self.squeeze(joined))))
