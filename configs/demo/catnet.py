"""CAT Mask R-CNN on the built-in aerial scenes, without initial weights: about four minutes on two CPU cores.

Data: ``python tools/make_demo_data.py harbours --format coco --out data/demo/harbours_coco --num-train 400
--num-val 100``.
``catnet_plain.py`` is its plain twin, Mask R-CNN.
"""

from mmengine.config import read_base

with read_base():
    from ..catnet import *

from torch.optim import AdamW

data_root = "data/demo/harbours_coco/"
max_epochs = 3
image_size = (256, 256)
metainfo = dict(
    classes=("plane", "small-vehicle", "large-vehicle", "ship", "storage-tank", "roundabout", "harbor"),
    palette=[
        *[(165, 42, 42), (138, 43, 226), (255, 128, 0), (255, 0, 255)],
        *[(0, 51, 153), (0, 139, 139), (255, 250, 205)],
    ],
)

train_pipeline[3].scale = image_size
test_pipeline[1].scale = image_size
train_dataloader.update(
    dict(
        batch_size=2,
        num_workers=1,
        dataset=dict(
            data_root=data_root,
            ann_file="annotations/instances_train.json",
            data_prefix=dict(img="images/train/"),
            metainfo=metainfo,
            pipeline=train_pipeline,
        ),
    )
)
val_dataloader.update(
    dict(
        batch_size=4,
        num_workers=1,
        dataset=dict(
            data_root=data_root,
            ann_file="annotations/instances_val.json",
            data_prefix=dict(img="images/val/"),
            metainfo=metainfo,
            pipeline=test_pipeline,
        ),
    )
)
test_dataloader = val_dataloader

few_proposals = dict(nms_pre=500, max_per_img=300)
strides = [4, 8, 16]
model.update(
    dict(
        backbone=dict(
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=(0, 1, 2),
            base_channels=16,
            stem_channels=16,
            frozen_stages=-1,
            norm_cfg=dict(type="BN"),
            init_cfg=None,
        ),
        rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4], strides=[*strides, 32])),
        roi_head=dict(
            bbox_roi_extractor=dict(out_channels=64, featmap_strides=strides),
            bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=7),
            mask_roi_extractor=dict(out_channels=64, featmap_strides=strides),
            mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=64, num_classes=7),
        ),
        train_cfg=dict(rpn_proposal=few_proposals, rcnn=dict(sampler=dict(num=64))),
        test_cfg=dict(rpn=few_proposals, rcnn=dict(max_per_img=100)),
    )
)
model.neck[0].update(
    dict(in_channels=[64, 128, 256], out_channels=64, num_outs=4, stack_times=2, norm_cfg=dict(type="BN"))
)
model.neck[1].update(dict(in_channels=64, num_levels=4))
# Without initial weights Adam gets further in this time than SGD, and the backbone has to learn like the rest.
optim_wrapper.optimizer = dict(type=AdamW, lr=1e-3, weight_decay=1e-4)
param_scheduler = [
    dict(type=LinearLR, by_epoch=False, begin=0, end=60, start_factor=0.02),
    dict(type=MultiStepLR, by_epoch=False, begin=0, end=600, milestones=[500], gamma=0.1),
]
train_cfg.max_epochs = max_epochs
train_cfg.val_interval = max_epochs
default_hooks.logger.interval = 20
auto_scale_lr.base_batch_size = 2
