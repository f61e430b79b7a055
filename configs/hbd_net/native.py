"""First stage of HBD-Net, one detector after the other: native patches, 18 epochs from ImageNet's weights."""

from mmengine.config import read_base

with read_base():
    from .._base_.dota_runtime import *
    from .._base_.glh_bridge import *
    from .._base_.hbd_rcnn_r50 import *

max_epochs = 18
train_cfg.max_epochs = max_epochs
param_scheduler[1].update(dict(end=max_epochs, milestones=[12, 16]))
