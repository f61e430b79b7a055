"""Panoptic FPN, ResNet-50, COCO 1x, without FreqFusion. Published: 40.2 PQ."""

from mmengine.config import read_base

with read_base():
    from .._base_.coco_panoptic import *
    from .._base_.panoptic_fpn_r50 import *
    from .._base_.schedule_1x import *
