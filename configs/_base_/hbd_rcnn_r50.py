"""The Oriented R-CNN that HBD-Net is made of: of one class, and with small regions on all levels of the pyramid."""

from mmengine.config import read_base

with read_base():
    from .oriented_rcnn_r50 import *

model.roi_head.bbox_roi_extractor.finest_scale = 16
model.roi_head.bbox_head.num_classes = 1
model.test_cfg.rcnn.update(dict(nms=dict(type="nms_rotated", iou_threshold=0.4), max_per_img=400))
