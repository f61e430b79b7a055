"""HRSC2016, all ships as one class, at most 1333 x 800 pixels; VOC07 AP at overlaps of 0.5 and 0.75.

Expected layout: ``data/hrsc/FullDataSet/{AllImages,Annotations}`` and ``data/hrsc/ImageSets/{trainval,test}.txt``.
"""

from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, RandomFlip, Resize
from mmengine.dataset import DefaultSampler
from mmengine.runner import ValLoop
from mmrotate.datasets.transforms import ConvertBoxType

from perception.datasets.hrsc import HrscShips
from perception.datasets.loading import LoadImage
from perception.datasets.oriented import IgnoreSmallObjects
from perception.datasets.resumable import SeedAugmentation
from perception.datasets.resumable_epochs import ResumableEpochBatchSampler
from perception.evaluation.dota import DOTATask1Metric

data_root = "data/hrsc/"
image_size = (1333, 800)

load_boxes = [
    dict(type=LoadAnnotations, with_bbox=True, box_type="qbox"),
    dict(type=ConvertBoxType, box_type_mapping=dict(gt_bboxes="rbox")),
]
train_pipeline = [
    dict(type=SeedAugmentation),
    dict(type=LoadImage),
    *load_boxes,
    dict(type=Resize, scale=image_size, keep_ratio=True),
    dict(type=RandomFlip, prob=0.75, direction=["horizontal", "vertical", "diagonal"]),
    dict(type=IgnoreSmallObjects, min_side=2),
    dict(type=PackDetInputs),
]
test_pipeline = [
    dict(type=LoadImage),
    dict(type=Resize, scale=image_size, keep_ratio=True),
    *load_boxes,
    dict(type=PackDetInputs, meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type=DefaultSampler, shuffle=True),
    batch_sampler=dict(type=ResumableEpochBatchSampler),
    dataset=dict(
        type=HrscShips,
        data_root=data_root,
        ann_file="ImageSets/trainval.txt",
        data_prefix=dict(sub_data_root="FullDataSet/"),
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
        type=HrscShips,
        data_root=data_root,
        ann_file="ImageSets/test.txt",
        data_prefix=dict(sub_data_root="FullDataSet/"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type=DOTATask1Metric, iou_thrs=[0.5, 0.75])
test_evaluator = val_evaluator
val_cfg = dict(type=ValLoop)
