"""Ablation: all losses from the first epoch on, 40 epochs."""

from mmengine.config import read_base

with read_base():
    from ..unifygeo import *

train_cfg.max_epochs = max_epochs
custom_hooks = custom_hooks[:1]
