"""FreqFusion in SegFormer, MiT-B0, ADE20K, 160 000 iterations of 16 crops.

The authors have not released such a head or recipe; the schedule is SegFormer's.
"""

from mmengine.config import read_base

with read_base():
    from .segformer_mit_b0_plain import *

from projects.freqfusion.head import SegformerHeadFreqAware

model.decode_head.type = SegformerHeadFreqAware
model.decode_head.compress_ratio = 8
