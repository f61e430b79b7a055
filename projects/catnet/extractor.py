"""HRoIE, registered with mmdet under the authors' name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from mmcv.cnn import ConvModule
from mmdet.models.roi_heads.roi_extractors import BaseRoIExtractor
from mmdet.registry import MODELS
from torch import Tensor

from .hroie import gated_sum, make_gates, rescaled, visiting_order


@MODELS.register_module()
class HierarchicalRoIExtractor(BaseRoIExtractor):
    """Crops of every region from every level, added up behind gates (:mod:`projects.catnet.hroie`).

    Args:
        roi_layer, out_channels, featmap_strides: as in mmdet's extractors.
        direction: ``"bottom_up"`` or ``"top_down"``.
        conv_cfg: of the gates' convolutions.
        init_cfg: of MMEngine.

    Raises:
        ValueError: another direction.
    """

    def __init__(
        self,
        roi_layer: dict,
        out_channels: int,
        featmap_strides: Sequence[int],
        direction: str = "bottom_up",
        conv_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        if init_cfg is None:
            init_cfg = dict(type="Caffe2Xavier", layer="Conv2d")
        super().__init__(roi_layer, out_channels, list(featmap_strides), init_cfg)
        self.order = visiting_order(self.num_inputs, direction)
        self.atts = make_gates(out_channels, self.num_inputs, partial(ConvModule, conv_cfg=conv_cfg, act_cfg=None))

    def forward(self, feats: Sequence[Tensor], rois: Tensor, roi_scale_factor: float | None = None) -> Tensor:
        """Features (R, C, rows, columns) of regions (R, 5) given as (image index, x1, y1, x2, y2).

        Crops are taken in float32 at least: half precision would round the regions to whole and even pixels.
        """
        precise = torch.promote_types(feats[0].dtype, torch.float32)
        rois = rois.to(precise)
        if roi_scale_factor is not None:
            rois = rescaled(rois, roi_scale_factor)
        crops = (self.roi_layers[i](feats[i].to(precise), rois).to(feats[i].dtype) for i in self.order)
        return gated_sum(crops, (self.atts[i] for i in self.order))
