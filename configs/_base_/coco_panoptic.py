"""COCO 2017 panoptic segmentation: 80 things and 53 stuffs.

Expected layout: ``data/coco/{train2017,val2017}/*.jpg``, ``data/coco/annotations/panoptic_{train,val}2017.json`` and
the folders ``data/coco/annotations/panoptic_{train,val}2017/`` of PNG files.
"""

from mmengine.config import read_base

with read_base():
    from .coco_mmdet import *

from perception.datasets.coco import CocoSegments
from perception.datasets.loading import LoadPanopticMapAnnotations
from perception.evaluation.coco import CocoSegmentsMetric

load_labels = dict(type=LoadPanopticMapAnnotations)
train_pipeline[1] = load_labels
test_pipeline[2] = load_labels
for loader, split, pipeline in (
    (train_dataloader, "train2017", train_pipeline),
    (val_dataloader, "val2017", test_pipeline),
):
    loader["dataset"].update(
        dict(
            type=CocoSegments,
            ann_file=f"annotations/panoptic_{split}.json",
            data_prefix=dict(img=f"{split}/", seg=f"annotations/panoptic_{split}/"),
            pipeline=pipeline,
        )
    )
del loader, split, pipeline
test_dataloader = val_dataloader
val_evaluator = dict(type=CocoSegmentsMetric)
test_evaluator = val_evaluator
