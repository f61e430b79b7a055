"""Ablation: both tasks share the heads, too."""

from mmengine.config import read_base

with read_base():
    from ..unifygeo import *

model.network.view.sharing = "head"
