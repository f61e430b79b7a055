"""M2-Track as the control of the MoCUT demo: its own inputs and losses, the same data and steps."""

from mmengine.config import read_base

with read_base():
    from .._base_.tracklets_demo import *
    from ..adaformer.m2track_kitti_all import *

model.update(points=128)

train_dataloader.update(training)
train_dataloader.dataset.update(points=128)
val_dataloader.update(evaluation)
test_dataloader = val_dataloader

optim_wrapper.update(optimizer=adam)
param_scheduler = schedule
train_cfg.update(max_epochs=max_epochs, val_interval=max_epochs)
default_hooks.checkpoint.update(interval=1, max_keep_ckpts=1)
default_hooks.logger.interval = 50
