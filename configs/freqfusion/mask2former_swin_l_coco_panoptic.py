"""FreqFusion in Mask2Former, Swin-L, COCO panoptic, 983 333 iterations, 200 queries.

The released file names the weights of Swin-B; here it is those of Swin-L.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.swin_b_384 import *
    from .mask2former_r50_coco_panoptic import *

max_iters = 983_333
model["backbone"] = swin
model["backbone"].update(
    dict(
        embed_dims=192,
        num_heads=[6, 12, 24, 48],
        init_cfg=dict(checkpoint="data/pretrained/swin_large_patch4_window12_384_22k.pth"),
    )
)
model["panoptic_head"].update(dict(in_channels=[192, 384, 768, 1536], num_queries=200))
optim_wrapper["paramwise_cfg"]["custom_keys"].update(swin_keys)
param_scheduler[0].update(dict(end=max_iters, milestones=[874_075, 946_912]))
train_cfg.update(dict(max_iters=max_iters, val_interval=max_iters // 10))
