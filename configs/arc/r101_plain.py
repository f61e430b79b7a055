"""Oriented R-CNN with a plain ResNet-101, DOTA-v1.0 single scale. Published: 76.28 AP50."""

from mmengine.config import read_base

with read_base():
    from .r50_plain import *

model.backbone = plain_r101
