"""DOTA-v1.0 in patches of 1024 pixels that overlap by 200 ("single scale"), for training and for the test server.

Expected layout: ``data/split_ss_dota/{trainval,test}/images/*.png`` and ``data/split_ss_dota/trainval/annfiles/*.txt``,
made by ``tools/dataset_converters/split_dota.py`` (docs/data.md). The test set has no public annotations: testing
writes the files that its server wants.
"""

from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, RandomFlip, Resize
from mmengine.dataset import DefaultSampler
from mmrotate.datasets.transforms import ConvertBoxType

from perception.datasets.dota_patches import DotaPatches
from perception.datasets.loading import LoadImage
from perception.datasets.oriented import IgnoreSmallObjects
from perception.datasets.resumable import SeedAugmentation
from perception.datasets.resumable_epochs import ResumableEpochBatchSampler
from perception.evaluation.dota import DOTATask1Metric

data_root = "data/split_ss_dota/"
image_size = (1024, 1024)

load_boxes = [
    dict(type=LoadAnnotations, with_bbox=True, box_type="qbox"),
    dict(type=ConvertBoxType, box_type_mapping=dict(gt_bboxes="rbox")),
]
train_pipeline = [
    dict(type=SeedAugmentation),
    dict(type=LoadImage),
    *load_boxes,
    dict(type=Resize, scale=image_size, keep_ratio=True),
    # Independent flips with probability 0.5 each.
    dict(type=RandomFlip, prob=0.75, direction=["horizontal", "vertical", "diagonal"]),
    dict(type=IgnoreSmallObjects, min_side=2),
    dict(type=PackDetInputs),
]
pack_for_testing = dict(type=PackDetInputs, meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"))
test_pipeline = [
    dict(type=LoadImage),
    dict(type=Resize, scale=image_size, keep_ratio=True),
    pack_for_testing,
]
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type=DefaultSampler, shuffle=True),
    batch_sampler=dict(type=ResumableEpochBatchSampler),
    dataset=dict(
        type=DotaPatches,
        data_root=data_root,
        ann_file="trainval/annfiles/",
        data_prefix=dict(img_path="trainval/images/"),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(
        type=DotaPatches,
        data_root=data_root,
        data_prefix=dict(img_path="test/images/"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
# Patches are merged as for the published results of ARC: its evaluation would use 0.1, but its test command used 0.5.
test_evaluator = dict(
    type=DOTATask1Metric, format_only=True, merge_patches=True, iou_thr=0.5, outfile_prefix="work_dirs/dota_task1"
)
val_dataloader = None
val_evaluator = None
