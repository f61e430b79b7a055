"""Rotated FCOS with a ResNet-50 for GLH-Bridge's one class: the model alone (mmrotate's rotated-fcos-le90)."""

from mmengine.config import read_base

with read_base():
    from .oriented_rcnn_r50 import *

from mmdet.models import FCOS
from mmdet.models.losses import CrossEntropyLoss, FocalLoss
from mmrotate.models.dense_heads import RotatedFCOSHead
from mmrotate.models.losses import RotatedIoULoss
from mmrotate.models.task_modules.coders import DistanceAnglePointCoder

model = dict(
    type=FCOS,
    data_preprocessor=model["data_preprocessor"],
    backbone=model["backbone"],
    neck={
        **model["neck"],
        "start_level": 1,
        "add_extra_convs": "on_output",
        "relu_before_extra_convs": True,
    },
    bbox_head=dict(
        type=RotatedFCOSHead,
        num_classes=1,
        in_channels=256,
        stacked_convs=4,
        feat_channels=256,
        strides=[8, 16, 32, 64, 128],
        center_sampling=True,
        center_sample_radius=1.5,
        norm_on_bbox=True,
        centerness_on_reg=True,
        use_hbbox_loss=False,
        scale_angle=True,
        bbox_coder=dict(type=DistanceAnglePointCoder, angle_version="le90"),
        loss_cls=dict(type=FocalLoss, use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type=RotatedIoULoss, loss_weight=1.0),
        loss_angle=None,
        loss_centerness=dict(type=CrossEntropyLoss, use_sigmoid=True, loss_weight=1.0),
    ),
    train_cfg=None,
    test_cfg=dict(
        nms_pre=2000,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type="nms_rotated", iou_threshold=0.1),
        max_per_img=2000,
    ),
)
