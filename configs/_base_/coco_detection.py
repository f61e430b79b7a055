"""COCO 2017 detection as detectron2 reads it: antialiased bilinear resizing, no empty images.

Expected layout: ``data/coco/{train2017,val2017}/*.jpg`` and ``data/coco/annotations/instances_{train,val}2017.json``.
"""

from mmcv.transforms import RandomChoice, RandomChoiceResize
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, RandomCrop, RandomFlip, Resize
from mmengine.dataset import DefaultSampler, InfiniteSampler

from perception.datasets.coco import CocoObjects
from perception.datasets.loading import LoadImage
from perception.datasets.resumable import ResumableBatchSampler, SeedAugmentation
from perception.evaluation.coco import CocoObjectsMetric

data_root = "data/coco/"

# (longest, shortest) edge limits; the crop branch first resizes without a limit on the longest edge.
multi_scales = [(1333, edge) for edge in range(480, 801, 32)]
unlimited = 1_000_000

load_image = dict(type=LoadImage)
choose_scale = dict(type=RandomChoiceResize, resize_type=Resize, scales=multi_scales, keep_ratio=True, backend="pillow")

train_pipeline = [
    dict(type=SeedAugmentation),
    load_image,
    dict(type=LoadAnnotations, with_bbox=True),
    dict(type=RandomFlip, prob=0.5),
    dict(
        type=RandomChoice,
        transforms=[
            [choose_scale],
            [
                dict(
                    type=RandomChoiceResize,
                    resize_type=Resize,
                    scales=[(unlimited, edge) for edge in (400, 500, 600)],
                    keep_ratio=True,
                    backend="pillow",
                ),
                dict(type=RandomCrop, crop_type="absolute_range", crop_size=(384, 600), allow_negative_crop=True),
                choose_scale,
            ],
        ],
    ),
    dict(type=PackDetInputs),
]
test_pipeline = [
    load_image,
    dict(type=Resize, scale=(1333, 800), keep_ratio=True, backend="pillow"),
    dict(type=LoadAnnotations, with_bbox=True),
    dict(type=PackDetInputs, meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type=InfiniteSampler, shuffle=True),
    batch_sampler=dict(type=ResumableBatchSampler),
    dataset=dict(
        type=CocoObjects,
        data_root=data_root,
        ann_file="annotations/instances_train2017.json",
        data_prefix=dict(img="train2017/"),
        filter_cfg=dict(filter_empty_gt=True),
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
# AP50, AP75 and the AP by size count the best 100 detections, as pycocotools does by default.
val_evaluator = dict(type=CocoObjectsMetric, metric="bbox", proposal_nums=(1, 10, 100))
test_evaluator = val_evaluator
