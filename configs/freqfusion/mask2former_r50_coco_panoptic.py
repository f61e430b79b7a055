"""FreqFusion in Mask2Former, ResNet-50, COCO panoptic."""

from mmengine.config import read_base

with read_base():
    from .mask2former_r50_coco_panoptic_plain import *

from projects.freqfusion.pixel_decoder import FreqAwareMSDeformAttnPixelDecoder

model.panoptic_head.pixel_decoder.type = FreqAwareMSDeformAttnPixelDecoder
model.panoptic_head.pixel_decoder.compress_ratio = 8
