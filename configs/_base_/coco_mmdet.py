"""COCO 2017 detection as mmdet reads it: one scale of 1333 x 800, flips.

Expected layout: ``data/coco/{train2017,val2017}/*.jpg`` and ``data/coco/annotations/instances_{train,val}2017.json``.
"""

from mmdet.datasets import AspectRatioBatchSampler
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, RandomFlip, Resize
from mmengine.dataset import DefaultSampler

from perception.datasets.coco import CocoObjects
from perception.datasets.loading import LoadImage
from perception.evaluation.coco import CocoObjectsMetric

data_root = "data/coco/"

load_labels = dict(type=LoadAnnotations, with_bbox=True)
train_pipeline = [
    dict(type=LoadImage),
    load_labels,
    dict(type=Resize, scale=(1333, 800), keep_ratio=True),
    dict(type=RandomFlip, prob=0.5),
    dict(type=PackDetInputs),
]
test_pipeline = [
    dict(type=LoadImage),
    dict(type=Resize, scale=(1333, 800), keep_ratio=True),
    load_labels,
    dict(type=PackDetInputs, meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type=DefaultSampler, shuffle=True),
    batch_sampler=dict(type=AspectRatioBatchSampler),
    dataset=dict(
        type=CocoObjects,
        data_root=data_root,
        ann_file="annotations/instances_train2017.json",
        data_prefix=dict(img="train2017/"),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(
        type=CocoObjects,
        data_root=data_root,
        ann_file="annotations/instances_val2017.json",
        data_prefix=dict(img="val2017/"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type=CocoObjectsMetric, metric="bbox")
test_evaluator = val_evaluator
