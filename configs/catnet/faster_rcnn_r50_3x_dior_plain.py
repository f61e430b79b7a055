"""Faster R-CNN, ResNet-50, FPN: the plain twin of ``cat_rcnn_r50_3x_dior.py``, with all of its other settings."""

from mmengine.config import read_base

with read_base():
    from .cat_rcnn_r50_3x_dior import *

from mmdet.models import FPN, SingleRoIExtractor

model.neck = dict(type=FPN, in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=5)
model.roi_head.bbox_roi_extractor.type = SingleRoIExtractor
model.roi_head.bbox_roi_extractor.pop("direction")
