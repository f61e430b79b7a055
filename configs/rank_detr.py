"""Rank-DETR, ResNet-50, 12 "epochs" of 7500 iterations (90 000 in all), 8 GPUs x 2 images. Published: 50.2 AP."""

from mmengine.config import read_base

with read_base():
    from ._base_.coco_detection import *
    from ._base_.default_runtime import *

from mmdet.models import ChannelMapper, DetDataPreprocessor, ResNet
from mmengine.optim import MultiStepLR, OptimWrapper
from mmengine.runner import IterBasedTrainLoop, TestLoop, ValLoop
from torch.optim import AdamW

from perception.engine.hooks import ExactResumeHook
from projects.rank_detr.detector import RankDETR
from projects.rank_detr.head import RankDetrHead
from projects.rank_detr.hooks import MatcherIterationHook
from projects.rank_detr.losses import RankDetrCriterion
from projects.rank_detr.matching import RankDetrMatcher
from projects.rank_detr.transformer import RankDetrTransformer

max_iters = 90_000

model = dict(
    type=RankDETR,
    data_preprocessor=dict(
        type=DetDataPreprocessor,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=1,
    ),
    backbone=dict(
        type=ResNet,
        depth=50,
        num_stages=4,
        out_indices=(1, 2, 3),
        frozen_stages=0,  # the stem alone
        norm_cfg=dict(type="BN", requires_grad=False),
        norm_eval=True,
        style="pytorch",
        init_cfg=dict(type="Pretrained", checkpoint="data/pretrained/resnet50-0676ba61.pth"),
    ),
    neck=dict(
        type=ChannelMapper,
        in_channels=[512, 1024, 2048],
        kernel_size=1,
        out_channels=256,
        act_cfg=None,
        norm_cfg=dict(type="GN", num_groups=32),
        bias=True,
        num_outs=4,
    ),
    transformer=dict(
        type=RankDetrTransformer,
        embed_dims=256,
        num_heads=8,
        num_levels=4,
        num_points=4,
        feedforward_channels=2048,
        num_encoder_layers=6,
        num_decoder_layers=6,
        num_queries_one2one=300,
        num_queries_one2many=1500,
        query_rank_layer=True,
        look_forward_twice=True,
        mixed_selection=True,
    ),
    bbox_head=dict(type=RankDetrHead, num_classes=80, rank_adaptive_classhead=True),
    criterion=dict(
        type=RankDetrCriterion,
        giou_aware_class_loss=True,
        class_weight=2.0,
        bbox_weight=5.0,
        giou_weight=2.0,
        k_one2many=6,
        lambda_one2many=1.0,
        matcher=dict(type=RankDetrMatcher, change_iter=67_500, iou_order_alpha=4.0),
    ),
    test_cfg=dict(max_per_img=300),
)

optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=AdamW, lr=2e-4, betas=(0.9, 0.999), weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1), sampling_offsets=dict(lr_mult=0.1))),
    clip_grad=dict(max_norm=0.1, norm_type=2),
)
param_scheduler = [
    dict(type=MultiStepLR, by_epoch=False, begin=0, end=max_iters, milestones=[82_500], gamma=0.1),
]
train_cfg = dict(type=IterBasedTrainLoop, max_iters=max_iters, val_interval=5000)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
custom_hooks = [dict(type=ExactResumeHook), dict(type=MatcherIterationHook)]
auto_scale_lr = dict(enable=False, base_batch_size=16)
