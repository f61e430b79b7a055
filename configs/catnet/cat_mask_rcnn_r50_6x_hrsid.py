"""CAT Mask R-CNN, ResNet-50, HRSID, 36 epochs of twice the images ("6x").

Published: 70.9 box AP, 57.6 mask AP.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.cat_mask_rcnn_r50 import *
    from .._base_.catnet_3x import *
    from .._base_.hrsid import *

model.roi_head.bbox_head.num_classes = len(classes)
model.roi_head.mask_head.num_classes = len(classes)
