"""Mask R-CNN, ResNet-50, COCO 1x, without FreqFusion. Published: 38.3 box AP, 34.7 mask AP."""

from mmengine.config import read_base

with read_base():
    from .._base_.coco_instance import *
    from .._base_.mask_rcnn_r50_fpn import *
    from .._base_.schedule_1x import *
