"""FreqFusion in Mask2Former, Swin-B, ADE20K. Published: 55.3 mIoU."""

from mmengine.config import read_base

with read_base():
    from .mask2former_swin_b_ade20k_plain import *

from projects.freqfusion.pixel_decoder import FreqAwareMSDeformAttnPixelDecoder

model.decode_head.pixel_decoder.type = FreqAwareMSDeformAttnPixelDecoder
model.decode_head.pixel_decoder.compress_ratio = 8
