"""What aerial data sets with instance masks share: ``coco_instance`` with flips of three kinds and exact resumption."""

from mmengine.config import read_base

with read_base():
    from .coco_instance import *

from perception.datasets.resumable import SeedAugmentation
from perception.datasets.resumable_epochs import ResumableEpochAspectRatioBatchSampler

train_pipeline = [
    dict(type=SeedAugmentation),
    dict(type=LoadImage),
    load_labels,
    dict(type=Resize, scale=(1333, 800), keep_ratio=True),
    # A quarter of the images each way, and a quarter as they are.
    dict(type=RandomFlip, prob=0.75, direction=["horizontal", "vertical", "diagonal"]),
    dict(type=PackDetInputs),
]
train_dataloader["batch_sampler"]["type"] = ResumableEpochAspectRatioBatchSampler
train_dataloader["dataset"]["pipeline"] = train_pipeline
test_dataloader = val_dataloader
val_evaluator["classwise"] = True
test_evaluator = val_evaluator
