"""FreqFusion in Panoptic FPN, ResNet-101, COCO 1x. Published: 44.0 PQ."""

from mmengine.config import read_base

with read_base():
    from .panoptic_fpn_r50 import *

model["backbone"].update(dict(depth=101, init_cfg=dict(checkpoint="data/pretrained/resnet101-63fe2227.pth")))
model["neck"].update(dict(feature_resample_norm=True))
