"""SiamCUT shrunk to the built-in streets, all four categories: four to six minutes on a CPU, too few to track well."""

from mmengine.config import read_base

with read_base():
    from .._base_.tracklets_demo import *
    from ..adaformer import *

# Everything comes nearer by 1 m from cloud to cloud: people would leave an area of half a metre around them.
area.update(min_margin=1.5)
model.update(area=area, **siamese_points)
model.backbone.update(dims=dims, radii=radii, num_samples=16, num_neighbours=8)
model.network.update(channels=64, vote_channels=64, num_proposals=32, vote_radius=0.6)

train_dataloader.update(training)
train_dataloader.dataset.update(area=area, **siamese_points)
val_dataloader.update(evaluation)
test_dataloader = val_dataloader

param_scheduler = schedule
train_cfg.update(max_epochs=max_epochs, val_interval=max_epochs)
default_hooks.checkpoint.update(interval=1, max_keep_ckpts=1)
default_hooks.logger.interval = 50
