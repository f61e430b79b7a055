"""CAT Mask R-CNN, ResNet-50, iSAID, 36 epochs ("3x"), 4 GPUs x 2 images. Published: 45.1 box AP, 37.2 mask AP."""

from mmengine.config import read_base

with read_base():
    from ._base_.cat_mask_rcnn_r50 import *
    from ._base_.catnet_3x import *
    from ._base_.isaid import *

model.roi_head.bbox_head.num_classes = len(classes)
model.roi_head.mask_head.num_classes = len(classes)
