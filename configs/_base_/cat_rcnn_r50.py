"""CAT R-CNN, ResNet-50: Faster R-CNN with DenseFPN, SCP and HRoIE for boxes. All norms learn, across GPUs."""

from mmengine.config import read_base

with read_base():
    from .catnet_necks import *
    from .faster_rcnn_r50_fpn import *

from projects.catnet.extractor import HierarchicalRoIExtractor

model.data_preprocessor.pad_size_divisor = 64
model.backbone.norm_cfg.type = "SyncBN"
model.backbone.norm_eval = False
model.neck = catnet_neck
model.roi_head.bbox_roi_extractor.type = HierarchicalRoIExtractor
model.roi_head.bbox_roi_extractor.direction = "bottom_up"
model.test_cfg.update(
    dict(
        rpn=dict(nms_pre=2000, max_per_img=2000),
        rcnn=dict(nms=dict(type="soft_nms", iou_threshold=0.5), max_per_img=1000),
    )
)
