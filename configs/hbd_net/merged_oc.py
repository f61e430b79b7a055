"""The same for the authors' weights, which know regions with angles in (0, pi/2] (mmrotate 0.x's "oc").

The second branch spreads regions over the levels of its pyramid as the released settings do (``finest_scale`` 56).
"""

from mmengine.config import read_base

with read_base():
    from .merged import *

from projects.hbd_net.frame import OpenCVFrameBoxCoder, OpenCVFrameRoIExtractor

model.roi_head.bbox_roi_extractor.type = OpenCVFrameRoIExtractor
model.roi_head.bbox_head.bbox_coder.type = OpenCVFrameBoxCoder
model.global_roi_head.bbox_roi_extractor.update(dict(type=OpenCVFrameRoIExtractor, finest_scale=56))
model.global_roi_head.bbox_head.bbox_coder.type = OpenCVFrameBoxCoder
model.global_roi_head.bbox_head.ratio = "h_over_w"  # as released, should they be trained on
