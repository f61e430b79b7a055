"""The plain twin of ``catnet.py``: Mask R-CNN with FPN, all else the same."""

from mmengine.config import read_base

with read_base():
    from .catnet import *

from mmdet.models import FPN, SingleRoIExtractor

model.neck = dict(type=FPN, in_channels=[64, 128, 256], out_channels=64, num_outs=4)
for extractor in (model.roi_head.bbox_roi_extractor, model.roi_head.mask_roi_extractor):
    extractor.update(dict(type=SingleRoIExtractor, finest_scale=28))
    extractor.pop("direction")
del extractor
