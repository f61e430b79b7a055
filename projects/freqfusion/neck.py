"""FPN with FreqFusion, registered with mmdet (Faster and Mask R-CNN, panoptic FPN)."""

from __future__ import annotations

from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from .pyramid import add_top_down, adding_fusions


@MODELS.register_module()
class FreqFusionFPN(BaseModule):
    """A feature pyramid whose levels are fused by FreqFusion (the authors' ``FreqFusionCARAFEFPN``).

    With more outputs than inputs, further laterals (3 x 3, stride 2) on the deepest input take part in the top-down
    path, as in the released necks; images must then be padded to multiples of 64 for the usual five levels, or
    ``sizes="pad"`` must be set.

    Args:
        in_channels: of the maps, from shallow to deep.
        out_channels: of every output.
        num_outs: outputs.
        start_level: first of the maps that is used.
        end_level: last of them; -1 for the deepest. Before that, there are no further laterals.
        compress_ratio: of the fusions.
        feature_resample: also resample by offsets.
        feature_resample_group: groups of channels with offsets of their own.
        norm_cfg: of the convolutions; ``None`` for a bias instead.
        act_cfg: of the convolutions; ``None`` for none.
        order: of convolution, norm and activation.
        init_cfg: of MMEngine.
        **fusion: other settings of :class:`~projects.freqfusion.fusion.FreqFusion`, ``checkpointing`` among them.

    Raises:
        ValueError: fewer outputs than inputs, or more although the deepest maps are left out.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        num_outs: int,
        start_level: int = 0,
        compress_ratio: int = 8,
        feature_resample: bool = True,
        feature_resample_group: int = 4,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        order: tuple[str, str, str] = ("conv", "norm", "act"),
        end_level: int = -1,
        init_cfg: dict | list[dict] | None = None,
        **fusion,
    ):
        super().__init__(init_cfg)
        cut = end_level not in (-1, len(in_channels) - 1)
        used = list(in_channels[start_level : end_level + 1] if cut else in_channels[start_level:])
        if num_outs < len(used):
            raise ValueError(f"{len(used)} maps are used, so num_outs must be at least that, got {num_outs}")
        if cut and num_outs > len(used):
            raise ValueError(f"with end_level={end_level} there are {len(used)} outputs, not {num_outs}")
        self.num_ins, self.start_level, self.num_used = len(in_channels), start_level, len(used)
        self.lateral_convs, self.fpn_convs = nn.ModuleList(), nn.ModuleList()
        common = dict(norm_cfg=norm_cfg, act_cfg=act_cfg, inplace=False, order=order)
        for level in range(num_outs):
            if level < self.num_used:
                source, options = used[level], dict(kernel_size=1)
            else:
                source = used[-1] if level == self.num_used else out_channels
                options = dict(kernel_size=3, stride=2, padding=1)
            self.lateral_convs.append(ConvModule(source, out_channels, **common, **options))
            self.fpn_convs.append(ConvModule(out_channels, out_channels, 3, padding=1, **common))
        self.alignment = adding_fusions(
            [out_channels] * num_outs,
            compress_ratio,
            feature_resample=feature_resample,
            feature_resample_group=feature_resample_group,
            **fusion,
        )
        self.register_load_state_dict_pre_hook(_drop_unused_fusion)

    def init_weights(self) -> None:
        """Xavier for the pyramid's own convolutions; the fusions start as FreqFusion does."""
        super().init_weights()
        for module in (*self.lateral_convs.modules(), *self.fpn_convs.modules()):
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for fusion in self.alignment:
            fusion.init_weights()

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps (B, out_channels, H_i, W_i), from shallow to deep, for maps of the backbone."""
        if len(inputs) != self.num_ins:
            raise ValueError(f"the neck was built for {self.num_ins} maps, got {len(inputs)}")
        laterals: list[Tensor] = []
        for level, conv in enumerate(self.lateral_convs):
            source = inputs[min(level + self.start_level, self.num_ins - 1)] if level <= self.num_used else laterals[-1]
            laterals.append(conv(source))
        return tuple(conv(x) for conv, x in zip(self.fpn_convs, add_top_down(laterals, self.alignment)))


def _drop_unused_fusion(neck: FreqFusionFPN, state_dict: dict, prefix: str, *_) -> None:
    """Without further laterals, the authors' neck holds one fusion more than there are pairs of levels."""
    extra = f"{prefix}alignment.{len(neck.alignment)}."
    if len(neck.lateral_convs) == neck.num_used:
        for key in [key for key in state_dict if key.startswith(extra)]:
            del state_dict[key]
