"""Oriented R-CNN with the plain ResNet-50 that ARC is compared with, DOTA-v1.0 single scale. Published: 75.87 AP50."""

from mmengine.config import read_base

with read_base():
    from ..arc import *
    from ._plain import *

model.backbone = plain_r50
optim_wrapper.pop("paramwise_cfg")  # as in the baseline: the backbone learns like the rest
