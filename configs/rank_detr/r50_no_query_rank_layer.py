"""Ablation: Rank-DETR without the query rank layer (queries are still sorted for the rank-adaptive head)."""

from mmengine.config import read_base

with read_base():
    from ..rank_detr import *

model.transformer.query_rank_layer = False
