"""FreqFusion in Panoptic FPN, ResNet-101, COCO 1x. Published: 44.0 PQ."""

from mmengine.config import read_base

with read_base():
    from .panoptic_fpn_r50 import *

model.backbone.depth = 101
model.backbone.init_cfg.checkpoint = "data/pretrained/resnet101-63fe2227.pth"
model.neck.feature_resample_norm = True
