"""FreqFusion in Mask R-CNN, ResNet-50, COCO 1x. Published: 40.0 box AP, 36.0 mask AP."""

from mmengine.config import read_base

with read_base():
    from .._base_.freqfusion_fpn import *
    from .mask_rcnn_r50_plain import *

model.data_preprocessor.pad_size_divisor = pad_size_divisor
model.neck = freqfusion_fpn
train_dataloader["batch_size"] = 4  # as released; for how many GPUs the learning rate was meant is unknown
