"""FreqFusion in Mask R-CNN, ResNet-50, COCO 1x. Published: 40.0 box AP, 36.0 mask AP."""

from mmengine.config import read_base

with read_base():
    from .mask_rcnn_r50_plain import *

from projects.freqfusion.neck import FreqFusionFPN

# The fifth level takes part in the top-down path, so images are padded to multiples of its stride.
model["data_preprocessor"].update(dict(pad_size_divisor=64))
model["neck"] = dict(
    type=FreqFusionFPN,
    in_channels=[256, 512, 1024, 2048],
    out_channels=256,
    num_outs=5,
    compress_ratio=8,
    feature_resample=True,
    feature_resample_group=4,
)
train_dataloader["batch_size"] = 4  # as released; for how many GPUs the learning rate was meant is unknown
