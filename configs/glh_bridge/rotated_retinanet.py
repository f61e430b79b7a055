"""Rotated RetinaNet with a ResNet-50 on native patches of GLH-Bridge (mmrotate's, le90)."""

from mmengine.config import read_base

with read_base():
    from ..arc.retinanet_r50_plain import *
    from .._base_.glh_bridge import *

model.bbox_head.num_classes = 1
