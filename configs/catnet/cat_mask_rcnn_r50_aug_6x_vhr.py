"""CAT Mask R-CNN, ResNet-50, NWPU VHR-10, 36 epochs of twice the images, of five scales.

Published: 72.4 box AP, 70.7 mask AP.
"""

from mmengine.config import read_base

with read_base():
    from .cat_mask_rcnn_r50_6x_vhr import *

from mmcv.transforms import RandomChoiceResize

train_pipeline[3] = dict(
    type=RandomChoiceResize,
    resize_type=Resize,
    scales=[(1200, height) for height in (1200, 1000, 800, 600, 400)],
    keep_ratio=True,
)
train_dataloader["dataset"]["dataset"]["pipeline"] = train_pipeline
