"""The plain twin of ``arc.py``: the same detector with a ResNet of the same depth and width, on the same data."""

from mmengine.config import read_base

with read_base():
    from .arc import *

from mmdet.models import ResNet

model.backbone.type = ResNet
model.backbone.pop("replace")
model.backbone.pop("kernel_number")
