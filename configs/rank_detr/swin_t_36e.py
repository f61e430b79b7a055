"""Rank-DETR, Swin-T, 36 "epochs". Published: 54.7 AP."""

from mmengine.config import read_base

with read_base():
    from .swin_t_12e import *
    from ._schedule_36e import *

model.criterion.matcher.change_iter = change_iter
