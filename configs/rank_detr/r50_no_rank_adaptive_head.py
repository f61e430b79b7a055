"""Ablation: Rank-DETR without the rank-adaptive classification head."""

from mmengine.config import read_base

with read_base():
    from ..rank_detr import *

model.bbox_head.rank_adaptive_classhead = False
