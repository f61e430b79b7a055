"""BEVFormer v2, two frames half a second apart, 48 epochs. Published: 52.6 NDS, 43.1 mAP."""

from mmengine.config import read_base

with read_base():
    from .t2_24e import *
    from ._schedule_48e import *
