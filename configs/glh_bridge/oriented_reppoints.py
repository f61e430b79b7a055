"""Oriented RepPoints with a ResNet-50 on native patches of GLH-Bridge (mmrotate's)."""

from mmengine.config import read_base

with read_base():
    from ..arc.cfa_r50_plain import *
    from .._base_.glh_bridge import *

from mmrotate.models.dense_heads import OrientedRepPointsHead
from mmrotate.models.losses import SpatialBorderLoss

model.neck.add_extra_convs = "on_input"
model.bbox_head.pop("transform_method")
model.bbox_head.pop("topk")
model.bbox_head.pop("anti_factor")
model.bbox_head.update(
    dict(
        type=OrientedRepPointsHead,
        num_classes=1,
        loss_spatial_init=dict(type=SpatialBorderLoss, loss_weight=0.05),
        loss_spatial_refine=dict(type=SpatialBorderLoss, loss_weight=0.1),
        init_qua_weight=0.2,
        top_ratio=0.4,
    )
)
# The head learns from quadrilaterals.
train_dataloader["dataset"].pipeline = [step for step in train_pipeline if step["type"] is not ConvertBoxType]
optim_wrapper.optimizer.lr = 0.008
