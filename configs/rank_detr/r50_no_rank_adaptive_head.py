"""Ablation: Rank-DETR without the rank-adaptive classification head."""

from mmengine.config import read_base

with read_base():
    from ..rank_detr import *

model["bbox_head"].update(dict(rank_adaptive_classhead=False))
