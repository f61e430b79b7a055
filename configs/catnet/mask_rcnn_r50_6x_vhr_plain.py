"""Mask R-CNN, ResNet-50, FPN: the plain twin of ``cat_mask_rcnn_r50_6x_vhr.py``, with all of its other settings."""

from mmengine.config import read_base

with read_base():
    from .cat_mask_rcnn_r50_6x_vhr import *

from mmdet.models import FPN, SingleRoIExtractor

model.neck = dict(type=FPN, in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=5)
model.roi_head.bbox_roi_extractor.type = SingleRoIExtractor
model.roi_head.bbox_roi_extractor.pop("direction")
model.roi_head.mask_roi_extractor.type = SingleRoIExtractor
model.roi_head.mask_roi_extractor.pop("direction")
