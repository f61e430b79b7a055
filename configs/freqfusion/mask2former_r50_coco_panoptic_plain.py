"""Mask2Former, ResNet-50, COCO panoptic, 368 750 iterations (50 epochs), 8 GPUs x 2, without FreqFusion."""

from mmengine.config import read_base

with read_base():
    from .._base_.coco_panoptic import *
    from .._base_.default_runtime import *
    from .._base_.mask2former import *

from mmcv.transforms import RandomResize
from mmdet.datasets.transforms import RandomCrop
from mmdet.models import (
    BatchFixedSizePad,
    DetDataPreprocessor,
    Mask2Former,
    Mask2FormerHead,
    MaskFormerFusionHead,
    ResNet,
)
from mmengine.dataset import InfiniteSampler
from mmengine.optim import MultiStepLR
from mmengine.runner import IterBasedTrainLoop, TestLoop, ValLoop

from perception.datasets.loading import LoadImage
from perception.datasets.resumable import ResumableBatchSampler, SeedAugmentation
from perception.engine.hooks import ExactResumeHook

image_size = (1024, 1024)
max_iters = 368_750

train_pipeline = [
    dict(type=SeedAugmentation),
    dict(type=LoadImage, to_float32=True),
    dict(type=LoadPanopticMapAnnotations),
    dict(type=RandomFlip, prob=0.5),
    dict(type=RandomResize, scale=image_size, ratio_range=(0.1, 2.0), keep_ratio=True, resize_type=Resize),
    dict(
        type=RandomCrop,
        crop_size=image_size,
        crop_type="absolute",
        recompute_bbox=True,
        allow_negative_crop=True,
    ),
    dict(type=PackDetInputs),
]
train_dataloader.update(
    dict(sampler=dict(type=InfiniteSampler, shuffle=True), batch_sampler=dict(type=ResumableBatchSampler))
)
train_dataloader["dataset"]["pipeline"] = train_pipeline
model = dict(
    type=Mask2Former,
    data_preprocessor=dict(
        type=DetDataPreprocessor,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
        pad_mask=True,
        mask_pad_value=0,
        pad_seg=True,
        seg_pad_value=255,
        batch_augments=[
            dict(
                type=BatchFixedSizePad,
                size=image_size,
                img_pad_value=0,
                pad_mask=True,
                mask_pad_value=0,
                pad_seg=True,
                seg_pad_value=255,
            )
        ],
    ),
    backbone=dict(
        type=ResNet,
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=-1,
        norm_cfg=dict(type="BN", requires_grad=False),
        norm_eval=True,
        style="pytorch",
        init_cfg=dict(type="Pretrained", checkpoint="data/pretrained/resnet50-0676ba61.pth"),
    ),
    panoptic_head=dict(
        type=Mask2FormerHead,
        **mask_head,
        out_channels=256,
        num_things_classes=80,
        num_stuff_classes=53,
        loss_cls=dict(
            type=CrossEntropyLoss,
            use_sigmoid=False,
            loss_weight=2.0,
            reduction="mean",
            class_weight=[1.0] * 133 + [0.1],
        ),
    ),
    panoptic_fusion_head=dict(
        type=MaskFormerFusionHead, num_things_classes=80, num_stuff_classes=53, loss_panoptic=None, init_cfg=None
    ),
    train_cfg=mask_train_cfg,
    test_cfg=dict(
        panoptic_on=True,
        semantic_on=False,
        instance_on=True,
        max_per_image=100,
        iou_thr=0.8,
        filter_low_score=True,  # as Mask2Former does: masks count where their score is at least a half
    ),
    init_cfg=None,
)
param_scheduler = [
    dict(type=MultiStepLR, by_epoch=False, begin=0, end=max_iters, milestones=[327_778, 355_092], gamma=0.1)
]
train_cfg = dict(type=IterBasedTrainLoop, max_iters=max_iters, val_interval=max_iters // 10)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
custom_hooks = [dict(type=ExactResumeHook)]
auto_scale_lr = dict(enable=False, base_batch_size=16)
