"""FreqFusion in Mask2Former, Swin-L, COCO panoptic, 983 333 iterations, 200 queries.

The released file names the weights of Swin-B; here it is those of Swin-L.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.swin_b_384 import *
    from .mask2former_r50_coco_panoptic import *

max_iters = 983_333
model.backbone = swin
model.backbone.embed_dims = 192
model.backbone.num_heads = [6, 12, 24, 48]
model.backbone.init_cfg.checkpoint = "data/pretrained/swin_large_patch4_window12_384_22k.pth"
model.panoptic_head.in_channels = [192, 384, 768, 1536]
model.panoptic_head.num_queries = 200
optim_wrapper.paramwise_cfg.custom_keys.update(swin_keys)
param_scheduler[0].end = max_iters
param_scheduler[0].milestones = [874_075, 946_912]
train_cfg.max_iters = max_iters
train_cfg.val_interval = max_iters // 10
