"""ARC-R50 in Oriented R-CNN, HRSC2016, 36 epochs (OBBDetection's schedule; ARC's own is not released)."""

from mmengine.config import read_base

with read_base():
    from ..arc import *
    from .._base_.hrsc import *

max_epochs = 36
model["roi_head"]["bbox_head"].update(dict(num_classes=1))
param_scheduler[1].update(dict(end=max_epochs, milestones=[24, 33]))
train_cfg.update(dict(max_epochs=max_epochs, val_interval=12))
