"""SegFormer, MiT-B0, ADE20K, without FreqFusion."""

from mmengine.config import read_base

with read_base():
    from .segnext_mscan_t_plain import *

from mmseg.models import MixVisionTransformer, SegformerHead

model.backbone = dict(
    type=MixVisionTransformer,
    embed_dims=32,
    num_layers=[2, 2, 2, 2],
    num_heads=[1, 2, 5, 8],
    patch_sizes=[7, 3, 3, 3],
    sr_ratios=[8, 4, 2, 1],
    out_indices=(0, 1, 2, 3),
    mlp_ratio=4,
    qkv_bias=True,
    drop_path_rate=0.1,
    init_cfg=dict(type="Pretrained", checkpoint="data/pretrained/mit_b0_20220624-7e0fe6dd.pth"),
)
model.decode_head = dict(
    type=SegformerHead,
    in_channels=[32, 64, 160, 256],
    in_index=[0, 1, 2, 3],
    channels=256,
    dropout_ratio=0.1,
    num_classes=150,
    norm_cfg=dict(type="SyncBN"),
    align_corners=False,
    loss_decode=dict(type=CrossEntropyLoss, use_sigmoid=False, loss_weight=1.0),
)
