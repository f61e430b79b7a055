"""48 epochs; the rate falls after the 44th."""

from mmengine.optim import LinearLR, MultiStepLR
from mmengine.runner import EpochBasedTrainLoop

max_epochs = 48
param_scheduler = [
    dict(type=LinearLR, by_epoch=False, begin=0, end=2000, start_factor=1 / 3),
    dict(type=MultiStepLR, by_epoch=True, begin=0, end=max_epochs, milestones=[44], gamma=0.1),
]
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=max_epochs, val_interval=4)
