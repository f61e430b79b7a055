"""Rank-DETR, ResNet-50, 36 "epochs" (270 000 iterations). Published: 51.2 AP."""

from mmengine.config import read_base

with read_base():
    from ..rank_detr import *
    from ._schedule_36e import *

model.criterion.matcher.change_iter = change_iter
