"""SegNeXt, MSCAN-T, ADE20K, without FreqFusion. Published: 41.1 mIoU."""

from mmengine.config import read_base

with read_base():
    from .._base_.ade20k import *
    from .._base_.segmentation_runtime import *
    from .._base_.segnext_mscan_t import *
