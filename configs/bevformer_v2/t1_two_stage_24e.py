"""The paper's two-stage variant of `t1_24e`: the perspective head's boxes become queries. It was never released.

What the paper leaves open is ours (projects/bevformer_v2/proposals.py). A grid mask would hide objects from the
proposals, so there is none.
"""

from mmengine.config import read_base

with read_base():
    from .t1_24e import *

model.pts_bbox_head.num_proposals = 100
train_dataloader.dataset.pipeline = [step for step in augmented_pipeline if step["type"] is not DrawGridMask]
