"""Rank-DETR shrunk to the built-in shapes: learns on two CPU cores in under four minutes, without initial weights.

Data: ``python tools/make_demo_data.py shapes --out data/demo/shapes --num-train 1000``.
"""

from mmengine.config import read_base

with read_base():
    from ..rank_detr import *

from mmengine.optim import LinearLR

data_root = "data/demo/shapes/"
max_iters = 950
image_size = (144, 144)

train_pipeline = [
    dict(type=SeedAugmentation),
    dict(type=LoadImage),
    dict(type=LoadAnnotations, with_bbox=True),
    dict(type=RandomFlip, prob=0.5),
    dict(type=RandomChoiceResize, resize_type=Resize, scales=[(s, s) for s in (112, 128, 144)], keep_ratio=True),
    dict(type=PackDetInputs),
]
test_pipeline = [
    dict(type=LoadImage),
    dict(type=Resize, scale=image_size, keep_ratio=True),
    dict(type=LoadAnnotations, with_bbox=True),
    dict(type=PackDetInputs, meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
metainfo = dict(
    classes=("circle", "square", "triangle", "star", "cross", "ring"),
    palette=[(230, 60, 70), (60, 130, 240), (250, 190, 40), (160, 80, 220), (40, 190, 120), (250, 120, 30)],
)
train_dataloader.update(
    dict(
        batch_size=4,
        num_workers=1,
        dataset=dict(
            data_root=data_root,
            ann_file="annotations/instances_train.json",
            data_prefix=dict(img="images/train/"),
            metainfo=metainfo,
            filter_cfg=dict(filter_empty_gt=True),
            pipeline=train_pipeline,
        ),
    )
)
val_dataloader.update(
    dict(
        batch_size=8,
        num_workers=1,
        dataset=dict(
            data_root=data_root,
            ann_file="annotations/instances_val.json",
            data_prefix=dict(img="images/val/"),
            metainfo=metainfo,
            test_mode=True,
            pipeline=test_pipeline,
        ),
    )
)
test_dataloader = val_dataloader

model.update(
    dict(
        backbone=dict(
            depth=18,
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=(0, 1, 2),  # strides 4, 8 and 16: the pictures are small
            base_channels=32,
            stem_channels=32,
            frozen_stages=-1,
            norm_cfg=dict(requires_grad=True),
            norm_eval=False,
            init_cfg=None,
        ),
        neck=dict(in_channels=[32, 64, 128], out_channels=64),
        transformer=dict(
            embed_dims=64,
            num_heads=4,
            num_points=2,
            feedforward_channels=256,
            num_encoder_layers=1,
            num_decoder_layers=3,
            num_queries_one2one=40,
            num_queries_one2many=120,
        ),
        bbox_head=dict(num_classes=6),
        # Without initial weights the backbone has to learn what tells classes apart: classification weighs more.
        criterion=dict(class_weight=10.0, matcher=dict(change_iter=max_iters * 3 // 4)),
        test_cfg=dict(max_per_img=100),
    )
)
optim_wrapper.optimizer.lr = 1e-3
optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult = 1.0
param_scheduler = [
    dict(type=LinearLR, by_epoch=False, begin=0, end=30, start_factor=0.02),
    dict(type=MultiStepLR, by_epoch=False, begin=0, end=max_iters, milestones=[max_iters * 17 // 20], gamma=0.1),
]
train_cfg.max_iters = max_iters
train_cfg.val_interval = max_iters
auto_scale_lr.base_batch_size = 4
default_hooks.checkpoint.interval = 300
default_hooks.checkpoint.max_keep_ckpts = 1
default_hooks.logger.interval = 20
