"""HBD-Net from detectors that were trained one after the other, 12 epochs of both branches and their fusion.

How long, and from which stage, is not published.
"""

from mmengine.config import read_base

with read_base():
    from ..hbd_net import *

max_epochs = 12
model.backbone.init_cfg = None
load_from = "work_dirs/hbd_net/merged.pth"
train_cfg.max_epochs = max_epochs
param_scheduler[1].update(dict(end=max_epochs, milestones=[8, 11]))
