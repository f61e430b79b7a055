"""ARC-R50 in Rotated RetinaNet, DOTA-v1.0 single scale. Published: 3.03 AP50 more than with a plain ResNet-50."""

from mmengine.config import read_base

with read_base():
    from ..arc import *
    from .._base_.one_stage_fpn import *

from mmdet.models import RetinaNet
from mmdet.models.dense_heads import RetinaHead
from mmdet.models.losses import FocalLoss, L1Loss
from mmdet.models.task_modules import PseudoSampler
from mmrotate.models.task_modules.prior_generators import FakeRotatedAnchorGenerator

# mmrotate's rotated-retinanet-rbox-le90; ARC's own settings are not released.
model = dict(
    type=RetinaNet,
    data_preprocessor=model["data_preprocessor"],
    backbone=model["backbone"],
    neck=one_stage_fpn,
    bbox_head=dict(
        type=RetinaHead,
        num_classes=15,
        in_channels=256,
        stacked_convs=4,
        feat_channels=256,
        anchor_generator=dict(
            type=FakeRotatedAnchorGenerator,
            angle_version="le90",
            octave_base_scale=4,
            scales_per_octave=3,
            ratios=[1.0, 0.5, 2.0],
            strides=[8, 16, 32, 64, 128],
        ),
        bbox_coder=dict(
            type=DeltaXYWHTRBBoxCoder,
            angle_version="le90",
            norm_factor=None,
            edge_swap=True,
            proj_xy=True,
            target_means=(0.0, 0.0, 0.0, 0.0, 0.0),
            target_stds=(1.0, 1.0, 1.0, 1.0, 1.0),
        ),
        loss_cls=dict(type=FocalLoss, use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type=L1Loss, loss_weight=1.0),
    ),
    train_cfg=dict(
        assigner=dict(
            type=MaxIoUAssigner,
            pos_iou_thr=0.5,
            neg_iou_thr=0.4,
            min_pos_iou=0,
            ignore_iof_thr=-1,
            iou_calculator=dict(type=RBboxOverlaps2D),
        ),
        sampler=dict(type=PseudoSampler),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=2000,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type="nms_rotated", iou_threshold=0.1),
        max_per_img=2000,
    ),
)
optim_wrapper.optimizer.lr = 0.0025
param_scheduler[0].start_factor = 1 / 3
