"""Rotated RetinaNet that learns boxes by the Wasserstein distance of Gaussians, on native patches of GLH-Bridge."""

from mmengine.config import read_base

with read_base():
    from .rotated_retinanet import *

from mmrotate.models.losses import GDLoss

model.bbox_head.reg_decoded_bbox = True
model.bbox_head.loss_bbox = dict(type=GDLoss, loss_type="gwd", loss_weight=5.0)
