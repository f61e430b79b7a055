"""Ablation: each task has encoders of its own."""

from mmengine.config import read_base

with read_base():
    from ..unifygeo import *

model.network.view.sharing = "none"
