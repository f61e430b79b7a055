"""CAT R-CNN, ResNet-50, DIOR, 36 epochs. Published: 75.8 AP50."""

from mmengine.config import read_base

with read_base():
    from .._base_.catnet_3x import *
    from .._base_.cat_rcnn_r50 import *
    from .._base_.dior import *

model.roi_head.bbox_head.num_classes = len(classes)
