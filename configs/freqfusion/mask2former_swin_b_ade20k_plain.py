"""Mask2Former, Swin-B, ADE20K, 160 000 iterations, 8 GPUs x 2 crops, without FreqFusion. Published: 53.9 mIoU."""

from mmengine.config import read_base

with read_base():
    from .._base_.ade20k import *
    from .._base_.mask2former_semantic import *
    from .._base_.segmentation_runtime import *
    from .._base_.swin_b_384 import *

from mmcv.transforms import RandomChoiceResize
from mmseg.datasets.transforms import ResizeShortestEdge

crop_size = (640, 640)
train_pipeline[3] = dict(
    type=RandomChoiceResize,
    scales=[64 * step for step in range(5, 21)],
    resize_type=ResizeShortestEdge,
    max_size=2560,
)
train_pipeline[4].update(dict(crop_size=crop_size))
test_pipeline[1].update(dict(scale=(2560, 640)))
train_dataloader["dataset"]["pipeline"] = train_pipeline
train_dataloader["batch_size"] = 2
val_dataloader["dataset"]["pipeline"] = test_pipeline
test_dataloader = val_dataloader
model.data_preprocessor.size = crop_size
model.backbone = swin
model.decode_head.in_channels = [128, 256, 512, 1024]
optim_wrapper.paramwise_cfg.custom_keys.update(swin_keys)
