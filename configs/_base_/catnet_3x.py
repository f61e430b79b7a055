"""CATNet's schedule "3x": 36 epochs of SGD for 8 images a step, resumed exactly."""

from mmengine.config import read_base

with read_base():
    from .schedule_1x import *

from perception.engine.epochs import ExactEpochResumeHook

max_epochs = 36
optim_wrapper.optimizer.lr = 0.01
param_scheduler[1].end = max_epochs
param_scheduler[1].milestones = [28, 34]
train_cfg.max_epochs = max_epochs
auto_scale_lr.base_batch_size = 8
custom_hooks = [dict(type=ExactEpochResumeHook)]
