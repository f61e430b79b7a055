"""Rank-DETR, Swin-T (ImageNet-1k), 12 "epochs". Published: 52.7 AP."""

from mmengine.config import read_base

with read_base():
    from ..rank_detr import *

from mmdet.models import SwinTransformer

model.backbone = dict(
    type=SwinTransformer,
    pretrain_img_size=224,
    embed_dims=96,
    depths=[2, 2, 6, 2],
    num_heads=[3, 6, 12, 24],
    window_size=7,
    mlp_ratio=4,
    qkv_bias=True,
    drop_path_rate=0.2,
    patch_norm=True,
    out_indices=(1, 2, 3),
    convert_weights=True,
    init_cfg=dict(type="Pretrained", checkpoint="data/pretrained/swin_tiny_patch4_window7_224.pth"),
)
model.neck.in_channels = [192, 384, 768]
model.transformer.checkpointing = True
