"""FreqFusion in Mask2Former, ResNet-101, Cityscapes."""

from mmengine.config import read_base

with read_base():
    from .mask2former_r50_cityscapes import *

model.backbone.depth = 101
model.backbone.init_cfg.checkpoint = "data/pretrained/resnet101-63fe2227.pth"
