"""Oriented R-CNN (ICCV 2021) with a ResNet-50 for DOTA's 15 classes: the model alone."""

from mmdet.models import DetDataPreprocessor, FasterRCNN, ResNet
from mmdet.models.losses import CrossEntropyLoss, SmoothL1Loss
from mmdet.models.necks import FPN
from mmdet.models.roi_heads import Shared2FCBBoxHead, StandardRoIHead
from mmdet.models.task_modules import AnchorGenerator, MaxIoUAssigner, RandomSampler
from mmrotate.models.dense_heads import OrientedRPNHead
from mmrotate.models.roi_heads.roi_extractors import RotatedSingleRoIExtractor
from mmrotate.models.task_modules.assigners import RBbox2HBboxOverlaps2D, RBboxOverlaps2D
from mmrotate.models.task_modules.coders import DeltaXYWHTRBBoxCoder
from torch.nn import Linear

from perception.detection.midpoint_offsets import ClosedFormMidpointOffsetCoder

proposals = dict(nms_pre=2000, max_per_img=2000, nms=dict(type="nms", iou_threshold=0.8), min_bbox_size=0)
model = dict(
    type=FasterRCNN,
    data_preprocessor=dict(
        type=DetDataPreprocessor,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
        boxtype2tensor=False,
    ),
    backbone=dict(
        type=ResNet,
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type="BN", requires_grad=True),
        norm_eval=True,
        style="pytorch",
        init_cfg=dict(type="Pretrained", checkpoint="data/pretrained/resnet50-0676ba61.pth"),
    ),
    neck=dict(type=FPN, in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=5),
    rpn_head=dict(
        type=OrientedRPNHead,
        in_channels=256,
        feat_channels=256,
        anchor_generator=dict(
            type=AnchorGenerator,
            scales=[8],
            ratios=[0.5, 1.0, 2.0],
            strides=[4, 8, 16, 32, 64],
            use_box_type=True,
        ),
        bbox_coder=dict(
            type=ClosedFormMidpointOffsetCoder,
            angle_version="le90",
            target_means=[0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            target_stds=[1.0, 1.0, 1.0, 1.0, 0.5, 0.5],
        ),
        loss_cls=dict(type=CrossEntropyLoss, use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type=SmoothL1Loss, beta=1 / 9, loss_weight=1.0),
    ),
    roi_head=dict(
        type=StandardRoIHead,
        bbox_roi_extractor=dict(
            type=RotatedSingleRoIExtractor,
            roi_layer=dict(type="RoIAlignRotated", out_size=7, sample_num=2, clockwise=True),
            out_channels=256,
            featmap_strides=[4, 8, 16, 32],
        ),
        bbox_head=dict(
            type=Shared2FCBBoxHead,
            predict_box_type="rbox",
            in_channels=256,
            fc_out_channels=1024,
            roi_feat_size=7,
            num_classes=15,
            reg_predictor_cfg=dict(type=Linear),
            cls_predictor_cfg=dict(type=Linear),
            bbox_coder=dict(
                type=DeltaXYWHTRBBoxCoder,
                angle_version="le90",
                norm_factor=None,
                edge_swap=True,
                proj_xy=True,
                target_means=(0.0, 0.0, 0.0, 0.0, 0.0),
                target_stds=(0.1, 0.1, 0.2, 0.2, 0.1),
            ),
            reg_class_agnostic=True,
            loss_cls=dict(type=CrossEntropyLoss, use_sigmoid=False, loss_weight=1.0),
            loss_bbox=dict(type=SmoothL1Loss, beta=1.0, loss_weight=1.0),
        ),
    ),
    train_cfg=dict(
        rpn=dict(
            assigner=dict(
                type=MaxIoUAssigner,
                pos_iou_thr=0.7,
                neg_iou_thr=0.3,
                min_pos_iou=0.3,
                match_low_quality=True,
                ignore_iof_thr=-1,
                iou_calculator=dict(type=RBbox2HBboxOverlaps2D),
            ),
            sampler=dict(type=RandomSampler, num=256, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=False),
            allowed_border=0,
            pos_weight=-1,
            debug=False,
        ),
        rpn_proposal=proposals,
        rcnn=dict(
            assigner=dict(
                type=MaxIoUAssigner,
                pos_iou_thr=0.5,
                neg_iou_thr=0.5,
                min_pos_iou=0.5,
                match_low_quality=False,
                ignore_iof_thr=-1,
                iou_calculator=dict(type=RBboxOverlaps2D),
            ),
            sampler=dict(type=RandomSampler, num=512, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=True),
            pos_weight=-1,
            debug=False,
        ),
    ),
    test_cfg=dict(
        rpn=proposals,
        rcnn=dict(
            nms_pre=2000,
            min_bbox_size=0,
            score_thr=0.05,
            nms=dict(type="nms_rotated", iou_threshold=0.1),
            max_per_img=2000,
        ),
    ),
)
