"""ARC-R101 (n = 4) in Oriented R-CNN, DOTA-v1.0 single scale. Published: 77.70 AP50."""

from mmengine.config import read_base

with read_base():
    from ..arc import *

model.backbone.depth = 101
model.backbone.init_cfg.checkpoint = "data/pretrained/ARC_ResNet101_xFFF_n4.pth"
