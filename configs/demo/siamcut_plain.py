"""P2B as the control of the SiamCUT demo: its own inputs and losses, the same data, widths and steps."""

from mmengine.config import read_base

with read_base():
    from .._base_.tracklets_demo import *
    from ..adaformer.p2b_kitti_all import *

model.update(**siamese_points, **siamese_tracking)
model.backbone.update(dims=dims, radii=radii, num_samples=16)
model.network.update(channels=64, vote_channels=64, num_proposals=32, vote_radius=0.6, likeness_gain=30.0)

train_dataloader.update(training)
train_dataloader.dataset.update(siamese_points)
val_dataloader.update(evaluation)
test_dataloader = val_dataloader

optim_wrapper.update(optimizer=adam)
param_scheduler = schedule
train_cfg.update(max_epochs=max_epochs, val_interval=max_epochs)
default_hooks.checkpoint.update(interval=1, max_keep_ckpts=1)
default_hooks.logger.interval = 50
