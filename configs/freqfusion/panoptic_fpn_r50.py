"""FreqFusion in Panoptic FPN, ResNet-50, COCO 1x. Published: 42.7 PQ."""

from mmengine.config import read_base

with read_base():
    from .._base_.freqfusion_fpn import *
    from .panoptic_fpn_r50_plain import *

model.data_preprocessor.pad_size_divisor = pad_size_divisor
model.neck = freqfusion_fpn
model.neck.feature_resample_norm = False
