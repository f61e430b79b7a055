"""FreqFusion in UPerNet, ResNet-50, ADE20K, 160 000 iterations of 16 crops. A use that the paper does not report."""

from mmengine.config import read_base

with read_base():
    from .upernet_r50_plain import *

from projects.freqfusion.head import UPerHeadFreqAware

model.decode_head.type = UPerHeadFreqAware
model.decode_head.compress_ratio = 8
