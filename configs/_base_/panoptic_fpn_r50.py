"""Panoptic FPN, ResNet-50, with mmdet's settings."""

from mmengine.config import read_base

with read_base():
    from .mask_rcnn_r50_fpn import *

from mmdet.models import HeuristicFusionHead, PanopticFPN, PanopticFPNHead

model.update(
    dict(
        type=PanopticFPN,
        data_preprocessor=dict(mask_pad_value=0, pad_seg=True, seg_pad_value=255),
        semantic_head=dict(
            type=PanopticFPNHead,
            num_things_classes=80,
            num_stuff_classes=53,
            in_channels=256,
            inner_channels=128,
            start_level=0,
            end_level=4,
            norm_cfg=dict(type="GN", num_groups=32, requires_grad=True),
            conv_cfg=None,
            loss_seg=dict(type=CrossEntropyLoss, ignore_index=255, loss_weight=0.5),
        ),
        panoptic_fusion_head=dict(type=HeuristicFusionHead, num_things_classes=80, num_stuff_classes=53),
        test_cfg=dict(
            rcnn=dict(
                score_thr=0.6,
                nms=dict(type="nms", iou_threshold=0.5, class_agnostic=True),
                max_per_img=100,
                mask_thr_binary=0.5,
            ),
            panoptic=dict(mask_overlap=0.5, stuff_area_limit=4096),
        ),
    )
)
