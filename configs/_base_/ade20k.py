"""ADE20K, semantic segmentation of 150 classes, as the authors of FreqFusion read it.

Test images are resized to multiples of 32, not padded, so that every map is exactly twice as large as the next.

Expected layout: ``data/ade/ADEChallengeData2016/{images,annotations}/{training,validation}/``.
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
from perception.datasets.segmentation import ADE20K

data_root = "data/ade/ADEChallengeData2016/"
crop_size = (512, 512)

train_pipeline = [
    dict(type=SeedAugmentation),
    dict(type=LoadImage),
    dict(type=LoadSegMapAnnotations),
    dict(type=RandomResize, scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True, resize_type=Resize),
    dict(type=RandomCrop, crop_size=crop_size, cat_max_ratio=0.75),
    dict(type=RandomFlip, prob=0.5),
    dict(type=PhotoMetricDistortion),
    dict(type=PackSegInputs),
]
test_pipeline = [
    dict(type=LoadImage),
    dict(type=Resize, scale=(2048, 512), keep_ratio=True),
    dict(type=ResizeToMultiple, size_divisor=32),
    dict(type=LoadSegMapAnnotations),  # after resizing: scores are those of the original size
    dict(type=PackSegInputs),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type=InfiniteSampler, shuffle=True),
    batch_sampler=dict(type=ResumableMixedBatchSampler),
    dataset=dict(
        type=ADE20K,
        data_root=data_root,
        data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(
        type=ADE20K,
        data_root=data_root,
        data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type=IoUMetric, iou_metrics=["mIoU"])
test_evaluator = val_evaluator
