"""Regions in the frame of OpenCV's angles, as the published weights know them, registered with mmrotate.

mmrotate before version 1 wrote a region with its angle in (0, pi/2] ("oc"). What is pooled of it and what its
regression means depend on that: the same rectangle under another angle is pooled turned by 90 degrees, with width and
height exchanged. Trained from scratch, a detector needs none of this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.structures.bbox import get_box_tensor
from mmrotate.models.roi_heads.roi_extractors import RotatedSingleRoIExtractor
from mmrotate.models.task_modules.coders import DeltaXYWHTRBBoxCoder
from mmrotate.models.task_modules.coders.delta_xywht_rbbox_coder import bbox2delta
from mmrotate.registry import MODELS, TASK_UTILS
from mmrotate.structures.bbox import RotatedBoxes
from torch import Tensor

from perception.geometry.rotated_boxes import as_oc


@MODELS.register_module()
class OpenCVFrameRoIExtractor(RotatedSingleRoIExtractor):
    """mmrotate's extractor, which pools regions along the side whose angle is in (0, pi/2]."""

    def forward(self, feats: Sequence[Tensor], rois: Tensor, roi_scale_factor: float | None = None) -> Tensor:
        """Features (R, C, rows, columns) of regions (R, 6) given as (image index, cx, cy, w, h, angle)."""
        framed = torch.cat([rois[:, :1], as_oc(rois[:, 1:])], 1)
        return super().forward(feats, framed, roi_scale_factor)


class _OpenCVBoxes(RotatedBoxes):
    """Boxes that mmrotate's encoder takes in the frame of (0, pi/2]; its own "oc" is [-pi/2, 0)."""

    def regularize_boxes(self, pattern: str | None = None, **_: Any) -> Tensor:
        return as_oc(self.tensor)


@TASK_UTILS.register_module()
class OpenCVFrameBoxCoder(DeltaXYWHTRBBoxCoder):
    """mmrotate's coder, whose offsets are those from the region with its angle in (0, pi/2].

    Use it with :class:`OpenCVFrameRoIExtractor`. ``angle_version`` is that of the decoded boxes.
    """

    def encode(self, bboxes: RotatedBoxes, gt_bboxes: RotatedBoxes) -> Tensor:
        """Offsets (N, 5) of objects from regions.

        Angles are not wrapped: an object turned further than its region keeps its sides up to 90 degrees, one turned
        back exchanges them from 45 degrees on.
        """
        regions = RotatedBoxes(as_oc(get_box_tensor(bboxes)), clone=False)
        objects = _OpenCVBoxes(get_box_tensor(gt_bboxes), clone=False)
        return bbox2delta(regions, objects, self.means, self.stds, "oc", self.norm_factor, self.edge_swap, self.proj_xy)

    def decode(
        self,
        bboxes: RotatedBoxes | Tensor,
        pred_bboxes: Tensor,
        max_shape: Sequence[int] | None = None,
        wh_ratio_clip: float = 16 / 1000,
    ) -> RotatedBoxes | Tensor:
        """Boxes (N, 5) from regions and offsets (N, 5)."""
        return super().decode(as_oc(get_box_tensor(bboxes)), pred_bboxes, max_shape, wh_ratio_clip)
