"""All four rank designs off: H-Deformable-DETR, the baseline (48.7 AP in the paper)."""

from mmengine.config import read_base

with read_base():
    from ..rank_detr import *

model.bbox_head.rank_adaptive_classhead = False
model.transformer.query_rank_layer = False
model.criterion.giou_aware_class_loss = False
model.criterion.matcher.change_iter = None
