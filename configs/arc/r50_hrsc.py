"""ARC-R50 in Oriented R-CNN, HRSC2016, 36 epochs (OBBDetection's schedule; ARC's own is not released)."""

from mmengine.config import read_base

with read_base():
    from ..arc import *
    from .._base_.hrsc import *

max_epochs = 36
model.roi_head.bbox_head.num_classes = 1
param_scheduler[1].end = max_epochs
param_scheduler[1].milestones = [24, 33]
train_cfg.max_epochs = max_epochs
train_cfg.val_interval = 12
