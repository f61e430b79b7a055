"""Rank-DETR, Swin-T, 36 "epochs". Published: 54.7 AP."""

from mmengine.config import read_base

with read_base():
    from .swin_t_12e import *

max_iters = 270_000
param_scheduler[0].update(dict(end=max_iters, milestones=[225_000]))
train_cfg.update(dict(max_iters=max_iters))
model["criterion"]["matcher"].update(dict(change_iter=202_500))
