"""Mask2Former, ResNet-50, for semantic segmentation in mmseg; 150 classes, to be set by the recipe."""

from mmengine.config import read_base

with read_base():
    from .mask2former import *

from mmdet.models import ResNet
from mmengine.optim import PolyLR
from mmengine.runner import IterBasedTrainLoop, TestLoop, ValLoop
from mmseg.models import EncoderDecoder, SegDataPreProcessor
from mmseg.models.decode_heads import Mask2FormerHead

from perception.engine.hooks import ExactResumeHook

max_iters = 160_000
num_classes = 150

model = dict(
    type=EncoderDecoder,
    data_preprocessor=dict(
        type=SegDataPreProcessor,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(512, 512),
    ),
    backbone=dict(
        type=ResNet,
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=-1,
        norm_cfg=dict(type="SyncBN", requires_grad=True),
        style="pytorch",
        init_cfg=dict(type="Pretrained", checkpoint="data/pretrained/resnet50-0676ba61.pth"),
    ),
    decode_head=dict(
        type=Mask2FormerHead,
        **mask_head,
        out_channels=256,
        num_classes=num_classes,
        align_corners=False,
        loss_cls=dict(
            type=CrossEntropyLoss,
            use_sigmoid=False,
            loss_weight=2.0,
            reduction="mean",
            class_weight=[1.0] * num_classes + [0.1],
        ),
        train_cfg=mask_train_cfg,
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
param_scheduler = [dict(type=PolyLR, by_epoch=False, begin=0, end=max_iters, power=0.9, eta_min=0)]
train_cfg = dict(type=IterBasedTrainLoop, max_iters=max_iters, val_interval=5000)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
custom_hooks = [dict(type=ExactResumeHook)]
auto_scale_lr = dict(enable=False, base_batch_size=16)
