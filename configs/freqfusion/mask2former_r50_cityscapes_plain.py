"""Mask2Former, ResNet-50, Cityscapes, 90 000 iterations, 8 GPUs x 2 crops of 512 x 1024, without FreqFusion."""

from mmengine.config import read_base

with read_base():
    from .._base_.cityscapes import *
    from .._base_.mask2former_semantic import *
    from .._base_.segmentation_runtime import *

from mmcv.transforms import RandomChoiceResize
from mmseg.datasets.transforms import ResizeShortestEdge

crop_size = (512, 1024)
max_iters = 90_000
num_classes = 19
train_pipeline[3] = dict(
    type=RandomChoiceResize,
    scales=[int(102.4 * step) for step in range(5, 21)],
    resize_type=ResizeShortestEdge,
    max_size=4096,
)
train_pipeline[4].update(dict(crop_size=crop_size))
train_dataloader["dataset"]["pipeline"] = train_pipeline
train_dataloader["batch_size"] = 2
model.data_preprocessor.size = crop_size
model.decode_head.num_classes = num_classes
model.decode_head.loss_cls.class_weight = [1.0] * num_classes + [0.1]
param_scheduler[0].end = max_iters
train_cfg.max_iters = max_iters
