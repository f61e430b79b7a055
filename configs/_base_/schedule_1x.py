"""mmdet's "1x": 12 epochs of SGD, for 16 images a step."""

from mmengine.config import read_base

with read_base():
    from .default_runtime import *

from mmengine.optim import LinearLR, MultiStepLR, OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, TestLoop, ValLoop
from torch.optim import SGD

optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.02, momentum=0.9, weight_decay=1e-4))
param_scheduler = [
    dict(type=LinearLR, by_epoch=False, begin=0, end=500, start_factor=0.001),
    dict(type=MultiStepLR, by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=12, val_interval=1)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
default_hooks.checkpoint.by_epoch = True
default_hooks.checkpoint.interval = 1
log_processor.by_epoch = True
auto_scale_lr = dict(enable=False, base_batch_size=16)
