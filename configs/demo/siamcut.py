"""SiamCUT shrunk to the built-in streets, all four categories: about eight minutes of one core."""

from mmengine.config import read_base

with read_base():
    from .._base_.tracklets_demo import *
    from ..adaformer import *

# Samples are moved by a metre: people would leave an area of half a metre around them.
area.update(min_margin=1.0)
# Samples are moved in the plane and turned: what a network says of heights is noise, which would add up.
model.update(area=area, use_z=False, **siamese_points, **siamese_tracking)
model.backbone.update(dims=dims, radii=radii, num_samples=16, num_neighbours=8, fps=False, identity_blocks=True)
model.network.update(channels=64, vote_channels=64, num_proposals=32, vote_radius=0.6, likeness_gain=30.0)

train_dataloader.update(training)
train_dataloader.dataset.update(area=area, **siamese_points)
val_dataloader.update(evaluation)
test_dataloader = val_dataloader

optim_wrapper.update(optimizer=adam)
param_scheduler = schedule
train_cfg.update(max_epochs=max_epochs, val_interval=max_epochs)
default_hooks.checkpoint.update(interval=1, max_keep_ckpts=1)
default_hooks.logger.interval = 50
