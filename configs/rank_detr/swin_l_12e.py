"""Rank-DETR, Swin-L (ImageNet-22k), 12 "epochs". Published: 57.3 AP."""

from mmengine.config import read_base

with read_base():
    from .swin_t_12e import *

model.backbone.embed_dims = 192
model.backbone.depths = [2, 2, 18, 2]
model.backbone.num_heads = [6, 12, 24, 48]
model.backbone.init_cfg.checkpoint = "data/pretrained/swin_large_patch4_window7_224_22k.pth"
model.neck.in_channels = [384, 768, 1536]
