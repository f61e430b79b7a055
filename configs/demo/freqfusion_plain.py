"""The twin of ``freqfusion.py`` without FreqFusion: nearest upsampling and adding."""

from mmengine.config import read_base

with read_base():
    from .freqfusion import *

from mmdet.models import FPN

model.neck = dict(type=FPN, in_channels=[24, 32, 64, 128], out_channels=64, num_outs=4)
