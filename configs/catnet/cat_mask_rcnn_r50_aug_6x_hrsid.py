"""CAT Mask R-CNN, ResNet-50, HRSID, 36 epochs of twice the images, of five scales.

Published: 72.0 box AP, 59.6 mask AP.
"""

from mmengine.config import read_base

with read_base():
    from .cat_mask_rcnn_r50_6x_hrsid import *

from mmcv.transforms import RandomChoiceResize

train_pipeline[3] = dict(
    type=RandomChoiceResize,
    resize_type=Resize,
    scales=[(1200, height) for height in (1200, 1100, 1000, 900, 800)],
    keep_ratio=True,
)
train_dataloader["dataset"]["dataset"]["pipeline"] = train_pipeline
