"""FreqFusion in Faster R-CNN, ResNet-101, COCO 1x. Published: 41.0 box AP."""

from mmengine.config import read_base

with read_base():
    from .faster_rcnn_r50 import *

model.backbone.depth = 101
model.backbone.init_cfg.checkpoint = "data/pretrained/resnet101-63fe2227.pth"
model.neck.feature_resample_group = 8
train_dataloader["batch_size"] = 4
