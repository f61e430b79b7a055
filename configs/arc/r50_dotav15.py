"""ARC-R50 in Oriented R-CNN, DOTA-v1.5 single scale. A third party reports 68.31 mAP."""

from mmengine.config import read_base

with read_base():
    from ..arc import *
    from .._base_.dotav15 import *

model.roi_head.bbox_head.num_classes = 16
