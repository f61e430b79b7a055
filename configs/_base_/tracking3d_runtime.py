"""Runtime and schedule of single-object trackers: Adam as in Open3DSOT, the unified trackers' 160 epochs."""

from mmengine.config import read_base

with read_base():
    from .default_runtime import *

from mmengine.optim import MultiStepLR, OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, TestLoop, ValLoop
from torch.optim import Adam

from perception.engine.epochs import ExactEpochResumeHook
from perception.engine.hooks import KeepFreedMemoryHook
from perception.evaluation.tracking3d import SuccessPrecision
from perception.inference.clouds.kind import Clouds

optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=Adam, lr=1e-3, betas=(0.5, 0.999), eps=1e-6))
param_scheduler = [dict(type=MultiStepLR, milestones=[40, 80, 120], gamma=0.2)]
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=160, val_interval=10)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
val_evaluator = test_evaluator = dict(type=SuccessPrecision)
custom_hooks = [dict(type=ExactEpochResumeHook), dict(type=KeepFreedMemoryHook)]
default_hooks.pop("visualization")
default_hooks.checkpoint.update(by_epoch=True, interval=10)
log_processor.by_epoch = True
folder_kind = dict(type=Clouds)
