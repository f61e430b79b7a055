"""COCO 2017 instance segmentation: ``coco_mmdet`` with masks."""

from mmengine.config import read_base

with read_base():
    from .coco_mmdet import *

load_labels.update(dict(with_mask=True))
train_pipeline[1] = load_labels
test_pipeline[2] = load_labels
train_dataloader["dataset"]["pipeline"] = train_pipeline
val_dataloader["dataset"]["pipeline"] = test_pipeline
test_dataloader = val_dataloader
val_evaluator.update(dict(metric=["bbox", "segm"]))
test_evaluator = val_evaluator
