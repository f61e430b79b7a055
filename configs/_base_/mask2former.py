"""Parts of Mask2Former with the settings of its authors: pixel decoder, transformer decoder, losses, optimiser."""

from mmdet.models.layers import MSDeformAttnPixelDecoder
from mmdet.models.losses import CrossEntropyLoss, DiceLoss
from mmdet.models.task_modules import (
    ClassificationCost,
    CrossEntropyLossCost,
    DiceCost,
    HungarianAssigner,
    MaskPseudoSampler,
)
from mmengine.optim import OptimWrapper
from torch.optim import AdamW

pixel_decoder = dict(
    type=MSDeformAttnPixelDecoder,
    num_outs=3,
    norm_cfg=dict(type="GN", num_groups=32),
    act_cfg=dict(type="ReLU"),
    encoder=dict(
        num_layers=6,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=256, num_heads=8, num_levels=3, num_points=4, dropout=0.0, batch_first=True),
            ffn_cfg=dict(
                embed_dims=256,
                feedforward_channels=1024,
                num_fcs=2,
                ffn_drop=0.0,
                act_cfg=dict(type="ReLU", inplace=True),
            ),
        ),
    ),
    positional_encoding=dict(num_feats=128, normalize=True),
)
transformer_decoder = dict(
    return_intermediate=True,
    num_layers=9,
    layer_cfg=dict(
        self_attn_cfg=dict(embed_dims=256, num_heads=8, dropout=0.0, batch_first=True),
        cross_attn_cfg=dict(embed_dims=256, num_heads=8, dropout=0.0, batch_first=True),
        ffn_cfg=dict(
            embed_dims=256,
            feedforward_channels=2048,
            num_fcs=2,
            ffn_drop=0.0,
            act_cfg=dict(type="ReLU", inplace=True),
        ),
    ),
)
mask_head = dict(
    in_channels=[256, 512, 1024, 2048],
    strides=[4, 8, 16, 32],
    feat_channels=256,
    num_queries=100,
    num_transformer_feat_level=3,
    pixel_decoder=pixel_decoder,
    enforce_decoder_input_project=False,
    positional_encoding=dict(num_feats=128, normalize=True),
    transformer_decoder=transformer_decoder,
    loss_mask=dict(type=CrossEntropyLoss, use_sigmoid=True, reduction="mean", loss_weight=5.0),
    loss_dice=dict(
        type=DiceLoss, use_sigmoid=True, activate=True, reduction="mean", naive_dice=True, eps=1.0, loss_weight=5.0
    ),
)
mask_train_cfg = dict(
    num_points=12544,
    oversample_ratio=3.0,
    importance_sample_ratio=0.75,
    assigner=dict(
        type=HungarianAssigner,
        match_costs=[
            dict(type=ClassificationCost, weight=2.0),
            dict(type=CrossEntropyLossCost, weight=5.0, use_sigmoid=True),
            dict(type=DiceCost, weight=5.0, pred_act=True, eps=1.0),
        ],
    ),
    sampler=dict(type=MaskPseudoSampler),
)
undecayed = dict(lr_mult=1.0, decay_mult=0.0)
optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=AdamW, lr=1e-4, weight_decay=0.05, eps=1e-8, betas=(0.9, 0.999)),
    clip_grad=dict(max_norm=0.01, norm_type=2),
    paramwise_cfg=dict(
        custom_keys=dict(
            backbone=dict(lr_mult=0.1, decay_mult=1.0),
            query_embed=undecayed,
            query_feat=undecayed,
            level_embed=undecayed,
        ),
        norm_decay_mult=0.0,
    ),
)
