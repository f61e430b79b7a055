"""Single-scale Oriented R-CNN with a ResNet-50 on native patches of GLH-Bridge."""

from mmengine.config import read_base

with read_base():
    from .._base_.dota_runtime import *
    from .._base_.glh_bridge import *
    from .._base_.oriented_rcnn_r50 import *

model.roi_head.bbox_head.num_classes = 1
