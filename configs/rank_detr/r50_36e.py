"""Rank-DETR, ResNet-50, 36 "epochs" (270 000 iterations). Published: 51.2 AP."""

from mmengine.config import read_base

with read_base():
    from ..rank_detr import *

max_iters = 270_000
param_scheduler[0].update(dict(end=max_iters, milestones=[225_000]))
train_cfg.update(dict(max_iters=max_iters))
model["criterion"]["matcher"].update(dict(change_iter=202_500))
