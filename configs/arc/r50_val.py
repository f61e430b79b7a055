"""ARC-R50 in Oriented R-CNN, trained on the training half of DOTA-v1.0 and evaluated on its validation half."""

from mmengine.config import read_base

with read_base():
    from ..arc import *
    from .._base_.dota_val import *

train_cfg.val_interval = max_epochs
