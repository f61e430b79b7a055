"""ARC in Oriented R-CNN on the built-in aerial scenes, without initial weights: three minutes on two CPU cores.

Data: ``python tools/make_demo_data.py harbours --out data/demo/harbours --num-train 400``.
"""

from mmengine.config import read_base

with read_base():
    from ..arc import *

from mmengine.runner import ValLoop
from torch.optim import AdamW

data_root = "data/demo/harbours/"
max_epochs = 3
image_size = (256, 256)
metainfo = dict(
    classes=("plane", "small-vehicle", "large-vehicle", "ship", "storage-tank", "roundabout", "harbor"),
    palette=[
        *[(165, 42, 42), (138, 43, 226), (255, 128, 0), (255, 0, 255)],
        *[(0, 51, 153), (0, 139, 139), (255, 250, 205)],
    ],
)

for step in train_pipeline:
    if "scale" in step:
        step.update(dict(scale=image_size))
test_pipeline = [
    dict(type=LoadImage),
    dict(type=Resize, scale=image_size, keep_ratio=True),
    *load_boxes,  # in the pixels of the file, as predictions are
    pack_for_testing,
]
train_dataloader.update(
    dict(
        batch_size=2,
        num_workers=1,
        dataset=dict(
            data_root=data_root,
            ann_file="train/annfiles/",
            data_prefix=dict(img_path="train/images/"),
            metainfo=metainfo,
            diff_thr=0,
            pipeline=train_pipeline,
        ),
    )
)
test_dataloader.update(
    dict(
        batch_size=4,
        num_workers=1,
        dataset=dict(
            data_root=data_root,
            ann_file="val/annfiles/",
            data_prefix=dict(img_path="val/images/"),
            metainfo=metainfo,
            pipeline=test_pipeline,
        ),
    )
)
val_dataloader = test_dataloader
test_evaluator = dict(type=DOTATask1Metric)
val_evaluator = test_evaluator
val_cfg = dict(type=ValLoop)

few_proposals = dict(nms_pre=500, max_per_img=300)
model.update(
    dict(
        backbone=dict(
            replace=((), None, None),
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=(0, 1, 2),  # strides 4, 8 and 16
            base_channels=16,
            stem_channels=16,
            frozen_stages=-1,
            norm_eval=False,
            init_cfg=None,
        ),
        neck=dict(in_channels=[64, 128, 256], out_channels=64, num_outs=4),
        rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32])),
        roi_head=dict(
            bbox_roi_extractor=dict(out_channels=64, featmap_strides=[4, 8, 16], finest_scale=28),
            bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=7),
        ),
        train_cfg=dict(rpn_proposal=few_proposals, rcnn=dict(sampler=dict(num=128))),
        test_cfg=dict(rpn=few_proposals, rcnn=dict(max_per_img=200)),
    )
)
# Without initial weights Adam gets further in this time than SGD, and the backbone has to learn like the rest.
optim_wrapper.optimizer = dict(type=AdamW, lr=1e-3, weight_decay=1e-4)
optim_wrapper.pop("paramwise_cfg")
param_scheduler = [
    dict(type=LinearLR, by_epoch=False, begin=0, end=60, start_factor=0.02),
    dict(type=MultiStepLR, by_epoch=False, begin=0, end=600, milestones=[500], gamma=0.1),
]
train_cfg.max_epochs = max_epochs
train_cfg.val_interval = max_epochs
default_hooks.logger.interval = 20
