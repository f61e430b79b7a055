"""Swin-B trained on ImageNet-22k at 384 px, with stochastic depth and learning rates as Mask2Former sets them."""

from mmdet.models import SwinTransformer

swin = dict(
    type=SwinTransformer,
    pretrain_img_size=384,
    embed_dims=128,
    depths=[2, 2, 18, 2],
    num_heads=[4, 8, 16, 32],
    window_size=12,
    mlp_ratio=4,
    qkv_bias=True,
    drop_path_rate=0.3,
    patch_norm=True,
    out_indices=(0, 1, 2, 3),
    convert_weights=True,
    init_cfg=dict(type="Pretrained", checkpoint="data/pretrained/swin_base_patch4_window12_384_22k.pth"),
)
slow_undecayed = dict(lr_mult=0.1, decay_mult=0.0)
# Norms of the backbone are not decayed, which a shorter key could not say against "backbone".
swin_keys = {
    "backbone.patch_embed.norm": slow_undecayed,
    "backbone.norm": slow_undecayed,
    "absolute_pos_embed": slow_undecayed,
    "relative_position_bias_table": slow_undecayed,
    **{
        f"backbone.stages.{stage}.blocks.{block}.norm": slow_undecayed
        for stage, depth in enumerate([2, 2, 18, 2])
        for block in range(depth)
    },
    **{f"backbone.stages.{stage}.downsample.norm": slow_undecayed for stage in range(3)},
}
