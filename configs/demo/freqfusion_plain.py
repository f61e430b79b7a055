"""The twin of ``freqfusion.py`` with SegNeXt's own head, which resizes its maps bilinearly and joins them."""

from mmengine.config import read_base

with read_base():
    from .freqfusion import *

model["decode_head"]["type"] = LightHamHead
del model["decode_head"]["compress_ratio"]
