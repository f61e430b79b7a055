"""CAT Mask R-CNN, ResNet-50, NWPU VHR-10, 36 epochs of twice the images ("6x").

Published: 71.0 box AP, 69.3 mask AP.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.cat_mask_rcnn_r50 import *
    from .._base_.catnet_3x import *
    from .._base_.vhr import *

model.roi_head.bbox_head.num_classes = len(classes)
model.roi_head.mask_head.num_classes = len(classes)
