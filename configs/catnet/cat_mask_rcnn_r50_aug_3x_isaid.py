"""CAT Mask R-CNN, ResNet-50, iSAID, 36 epochs, images of five scales. Published: 47.7 box AP, 39.2 mask AP."""

from mmengine.config import read_base

with read_base():
    from ..catnet import *

from mmcv.transforms import RandomChoiceResize

train_pipeline[3] = dict(
    type=RandomChoiceResize,
    resize_type=Resize,
    scales=[(1400, height) for height in (1200, 1000, 800, 600, 400)],
    keep_ratio=True,
)
train_dataloader["dataset"]["pipeline"] = train_pipeline
