"""Faster R-CNN, ResNet-50, COCO 1x, without FreqFusion. Published: 37.5 box AP."""

from mmengine.config import read_base

with read_base():
    from .._base_.coco_mmdet import *
    from .._base_.faster_rcnn_r50_fpn import *
    from .._base_.schedule_1x import *
