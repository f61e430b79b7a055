"""Rank-DETR, Swin-L, 36 "epochs", drop path 0.5. Published: 58.2 AP."""

from mmengine.config import read_base

with read_base():
    from .swin_l_12e import *
    from ._schedule_36e import *

model.criterion.matcher.change_iter = change_iter
model.backbone.drop_path_rate = 0.5
