"""Ablation: Rank-DETR without the high-order matching cost (the weighted cost throughout)."""

from mmengine.config import read_base

with read_base():
    from ..rank_detr import *

model.criterion.matcher.change_iter = None
