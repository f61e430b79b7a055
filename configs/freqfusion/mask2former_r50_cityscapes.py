"""FreqFusion in Mask2Former, ResNet-50, Cityscapes."""

from mmengine.config import read_base

with read_base():
    from .mask2former_r50_cityscapes_plain import *

from projects.freqfusion.pixel_decoder import FreqAwareMSDeformAttnPixelDecoder

model.decode_head.pixel_decoder.type = FreqAwareMSDeformAttnPixelDecoder
model.decode_head.pixel_decoder.compress_ratio = 8
