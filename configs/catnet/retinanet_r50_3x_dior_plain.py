"""RetinaNet, ResNet-50, FPN: the plain twin of ``catnet_r50_3x_dior.py``, with all of its other settings."""

from mmengine.config import read_base

with read_base():
    from .._base_.one_stage_fpn import *
    from .catnet_r50_3x_dior import *

model.neck = one_stage_fpn
