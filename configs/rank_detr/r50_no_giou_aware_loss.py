"""Ablation: Rank-DETR without the GIoU-aware classification loss (focal loss instead)."""

from mmengine.config import read_base

with read_base():
    from ..rank_detr import *

model.criterion.giou_aware_class_loss = False
