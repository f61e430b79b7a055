"""R3Det that learns boxes by the divergence of their Gaussians, on native patches of GLH-Bridge (mmrotate's, oc)."""

from mmengine.config import read_base

with read_base():
    from .r3det import *

from mmrotate.models.losses import GDLoss

divergence = dict(type=GDLoss, loss_type="kld", fun="log1p", tau=1.0, sqrt=False, loss_weight=5.0)
model.bbox_head_init.update(dict(reg_decoded_bbox=True))
model.bbox_head_init.loss_bbox = divergence
model.bbox_head_refine[0].update(dict(reg_decoded_bbox=True))
model.bbox_head_refine[0].loss_bbox = divergence
