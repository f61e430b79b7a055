"""36 "epochs" of 7500 iterations (270 000 in all); the matching cost changes after three quarters of them."""

from mmengine.optim import MultiStepLR
from mmengine.runner import IterBasedTrainLoop

max_iters = 270_000
change_iter = 202_500  # of the matcher
param_scheduler = [
    dict(type=MultiStepLR, by_epoch=False, begin=0, end=max_iters, milestones=[225_000], gamma=0.1),
]
train_cfg = dict(type=IterBasedTrainLoop, max_iters=max_iters, val_interval=5000)
