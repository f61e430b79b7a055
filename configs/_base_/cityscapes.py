"""Cityscapes, semantic segmentation of 19 classes.

Expected layout: ``data/cityscapes/{leftImg8bit,gtFine}/{train,val}/CITY/``, with the ``*_labelTrainIds.png`` that the
data set's own scripts make.
"""

from mmcv.transforms import RandomFlip, RandomResize, Resize
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmseg.datasets.transforms import (
    PackSegInputs,
    PhotoMetricDistortion,
    RandomCrop,
    ResizeToMultiple,
)
from mmseg.evaluation import IoUMetric

from perception.datasets.loading import LoadImage, LoadSegMapAnnotations
from perception.datasets.resumable import ResumableMixedBatchSampler, SeedAugmentation
from perception.datasets.segmentation import Cityscapes

data_root = "data/cityscapes/"
crop_size = (1024, 1024)

train_pipeline = [
    dict(type=SeedAugmentation),
    dict(type=LoadImage),
    dict(type=LoadSegMapAnnotations),
    dict(type=RandomResize, scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True, resize_type=Resize),
    dict(type=RandomCrop, crop_size=crop_size, cat_max_ratio=0.75),
    dict(type=RandomFlip, prob=0.5),
    dict(type=PhotoMetricDistortion),
    dict(type=PackSegInputs),
]
test_pipeline = [
    dict(type=LoadImage),
    dict(type=Resize, scale=(2048, 1024), keep_ratio=True),
    dict(type=ResizeToMultiple, size_divisor=32),
    dict(type=LoadSegMapAnnotations),
    dict(type=PackSegInputs),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type=InfiniteSampler, shuffle=True),
    batch_sampler=dict(type=ResumableMixedBatchSampler),
    dataset=dict(
        type=Cityscapes,
        data_root=data_root,
        data_prefix=dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(
        type=Cityscapes,
        data_root=data_root,
        data_prefix=dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val"),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type=IoUMetric, iou_metrics=["mIoU"])
test_evaluator = val_evaluator
