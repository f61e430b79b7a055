"""FreqFusion in Mask R-CNN, ResNet-101, COCO 1x. Published: 41.6 box AP, 37.4 mask AP."""

from mmengine.config import read_base

with read_base():
    from .mask_rcnn_r50 import *

model.backbone.depth = 101
model.backbone.init_cfg.checkpoint = "data/pretrained/resnet101-63fe2227.pth"
