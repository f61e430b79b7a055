"""CATNet (RetinaNet), ResNet-50, DIOR, 36 epochs, images of five scales. Published: 78.2 AP50."""

from mmengine.config import read_base

with read_base():
    from .catnet_r50_3x_dior import *

from mmcv.transforms import RandomChoiceResize

train_pipeline[3] = dict(
    type=RandomChoiceResize,
    resize_type=Resize,
    scales=[(1200, height) for height in (1200, 1000, 800, 600, 400)],
    keep_ratio=True,
)
for part in train_dataloader["dataset"]["datasets"]:
    part.pipeline = train_pipeline
del part
