"""Ablation: only the coarsest scores are trained by the matching loss."""

from mmengine.config import read_base

with read_base():
    from ..unifygeo import *

model.match_levels = (0,)
