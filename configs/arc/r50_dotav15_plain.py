"""Oriented R-CNN with a plain ResNet-50, DOTA-v1.5 single scale."""

from mmengine.config import read_base

with read_base():
    from .r50_dotav15 import *
    from ._plain import *

model.backbone = plain_r50
optim_wrapper.pop("paramwise_cfg")  # as in the baseline: the backbone learns like the rest
