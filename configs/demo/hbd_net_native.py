"""First stage of HBD-Net's demo, on native patches of the built-in bridges; see ``hbd_net.py``."""

from mmengine.config import read_base

with read_base():
    from .hbd_net_plain import *

max_epochs = 2
train_cfg.max_epochs = max_epochs
param_scheduler[1].update(dict(end=max_epochs, milestones=[1]))
