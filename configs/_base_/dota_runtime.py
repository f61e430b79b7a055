"""Runtime settings of recipes for oriented boxes, which count epochs."""

from mmengine.config import read_base

with read_base():
    from .default_runtime import *

from mmengine.runner import TestLoop
from mmrotate.visualization import RotLocalVisualizer

from perception.engine.epochs import ExactEpochResumeHook

default_scope = "mmrotate"
default_hooks.checkpoint.by_epoch = True
default_hooks.checkpoint.interval = 1
log_processor.by_epoch = True
visualizer.type = RotLocalVisualizer
custom_hooks = [dict(type=ExactEpochResumeHook)]
val_cfg = None
test_cfg = dict(type=TestLoop)
