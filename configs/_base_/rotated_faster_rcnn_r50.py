"""Rotated Faster R-CNN with a ResNet-50 for DOTA's 15 classes: the model alone (mmrotate's, le90)."""

from mmengine.config import read_base

with read_base():
    from .oriented_rcnn_r50 import *

from mmdet.models.dense_heads import RPNHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmrotate.models.task_modules.coders import DeltaXYWHHBBoxCoder, DeltaXYWHTHBBoxCoder

model.rpn_head.type = RPNHead
model.rpn_head.bbox_coder = dict(
    type=DeltaXYWHHBBoxCoder,
    target_means=[0.0, 0.0, 0.0, 0.0],
    target_stds=[1.0, 1.0, 1.0, 1.0],
    use_box_type=True,
)
model.roi_head.bbox_roi_extractor = dict(
    type=SingleRoIExtractor,
    roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=0),
    out_channels=256,
    featmap_strides=[4, 8, 16, 32],
)
model.roi_head.bbox_head.bbox_coder = dict(
    type=DeltaXYWHTHBBoxCoder,
    angle_version="le90",
    norm_factor=2,
    edge_swap=True,
    target_means=(0.0, 0.0, 0.0, 0.0, 0.0),
    target_stds=(0.1, 0.1, 0.2, 0.2, 0.1),
    use_box_type=True,
)
model.train_cfg.rpn_proposal.nms.iou_threshold = 0.7
model.train_cfg.rcnn.assigner.iou_calculator.type = RBbox2HBboxOverlaps2D
model.test_cfg.rpn.nms.iou_threshold = 0.7
