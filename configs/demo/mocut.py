"""MoCUT shrunk to the built-in streets, all four categories: about ten minutes of one core."""

from mmengine.config import read_base

with read_base():
    from .._base_.tracklets_demo import *
    from ..adaformer.mocut_kitti import *

# Samples are moved by a metre: people would leave an area of half a metre around them.
area.update(min_margin=1.0)
model.update(area=area, points=128)
model.segmenter.backbone.update(
    dims=dims, radii=radii, num_samples=16, num_neighbours=8, fps=False, identity_blocks=True
)
model.segmenter.update(decoder=((64, 64), (64, 32), (32, 32)))

train_dataloader.update(training)
train_dataloader.dataset.update(area=area, points=128)
val_dataloader.update(evaluation)
test_dataloader = val_dataloader

optim_wrapper.update(optimizer=adam)
param_scheduler = schedule
train_cfg.update(max_epochs=max_epochs, val_interval=max_epochs)
default_hooks.checkpoint.update(interval=1, max_keep_ckpts=1)
default_hooks.logger.interval = 50
