"""Ablation: the re-ranking loss is left out, and nothing is re-ranked."""

from mmengine.config import read_base

with read_base():
    from ..unifygeo import *

model.rerank_weight = 0.0
model.rerank_topk = 0
train_cfg.max_epochs = max_epochs
custom_hooks = custom_hooks[:1]
