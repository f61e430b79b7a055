"""RoI Transformer with a ResNet-50 on native patches of GLH-Bridge (mmrotate's, oc)."""

from mmengine.config import read_base

with read_base():
    from .rotated_faster_rcnn import *

from mmdet.models import CascadeRCNN
from mmdet.models.roi_heads import CascadeRoIHead

upright = model["roi_head"]
first_head = {**upright["bbox_head"], "bbox_coder": {**upright["bbox_head"]["bbox_coder"], "angle_version": "oc"}}
second_head = {
    **upright["bbox_head"],
    "bbox_coder": dict(
        type=DeltaXYWHTRBBoxCoder,
        angle_version="oc",
        norm_factor=None,
        edge_swap=True,
        proj_xy=True,
        target_means=[0.0, 0.0, 0.0, 0.0, 0.0],
        target_stds=[0.05, 0.05, 0.1, 0.1, 0.05],
    ),
    "reg_class_agnostic": False,
}
first_stage = model["train_cfg"]["rcnn"]
second_stage = {
    **first_stage,
    "assigner": {**first_stage["assigner"], "iou_calculator": dict(type=RBboxOverlaps2D)},
}
model.type = CascadeRCNN
model.roi_head = dict(
    type=CascadeRoIHead,
    num_stages=2,
    stage_loss_weights=[1, 1],
    bbox_roi_extractor=[
        upright["bbox_roi_extractor"],
        dict(
            type=RotatedSingleRoIExtractor,
            roi_layer=dict(type="RoIAlignRotated", out_size=7, sample_num=2, clockwise=True),
            out_channels=256,
            featmap_strides=[4, 8, 16, 32],
        ),
    ],
    bbox_head=[first_head, second_head],
)
model.train_cfg.rcnn = [first_stage, second_stage]
