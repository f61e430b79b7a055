"""Oriented R-CNN with a plain ResNet-50, HRSC2016, 36 epochs."""

from mmengine.config import read_base

with read_base():
    from .r50_hrsc import *
    from ._plain import *

model.backbone = plain_r50
optim_wrapper.pop("paramwise_cfg")  # as in the baseline: the backbone learns like the rest
