"""BEVFormer v2, one frame, without augmentation, 48 epochs. Published: 43.9 NDS, 35.9 mAP."""

from mmengine.config import read_base

with read_base():
    from ..bevformer_v2 import *
    from ._schedule_48e import *
