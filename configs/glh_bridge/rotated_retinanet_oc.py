"""The same with angles in [-pi/2, 0) (mmrotate's oc)."""

from mmengine.config import read_base

with read_base():
    from .rotated_retinanet import *

model.bbox_head.anchor_generator.angle_version = "oc"
model.bbox_head.bbox_coder.update(dict(angle_version="oc", edge_swap=False, proj_xy=False))
