"""Rank-DETR, Swin-L (ImageNet-22k), 12 "epochs". Published: 57.3 AP."""

from mmengine.config import read_base

with read_base():
    from .swin_t_12e import *

model["backbone"].update(
    dict(
        embed_dims=192,
        depths=[2, 2, 18, 2],
        num_heads=[6, 12, 24, 48],
        init_cfg=dict(checkpoint="data/pretrained/swin_large_patch4_window7_224_22k.pth"),
    )
)
model["neck"].update(dict(in_channels=[384, 768, 1536]))
