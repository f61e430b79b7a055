"""Rank-DETR, Swin-L, 36 "epochs", drop path 0.5. Published: 58.2 AP."""

from mmengine.config import read_base

with read_base():
    from .swin_l_12e import *

max_iters = 270_000
param_scheduler[0].update(dict(end=max_iters, milestones=[225_000]))
train_cfg.update(dict(max_iters=max_iters))
model["criterion"]["matcher"].update(dict(change_iter=202_500))
model["backbone"].update(dict(drop_path_rate=0.5))
