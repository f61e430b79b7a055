"""SegNeXt with MSCAN-T and its own head, trained for 160 000 iterations of 16 crops."""

from mmengine.optim import LinearLR, OptimWrapper, PolyLR
from mmengine.runner import IterBasedTrainLoop, TestLoop, ValLoop
from mmseg.models import MSCAN, EncoderDecoder, LightHamHead, SegDataPreProcessor
from mmseg.models.losses import CrossEntropyLoss
from torch.optim import AdamW

from perception.engine.hooks import ExactResumeHook

max_iters = 160_000

model = dict(
    type=EncoderDecoder,
    data_preprocessor=dict(
        type=SegDataPreProcessor,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(512, 512),
    ),
    backbone=dict(
        type=MSCAN,
        embed_dims=[32, 64, 160, 256],
        depths=[3, 3, 5, 2],
        mlp_ratios=[8, 8, 4, 4],
        drop_rate=0.0,
        drop_path_rate=0.1,
        attention_kernel_sizes=[5, [1, 7], [1, 11], [1, 21]],
        attention_kernel_paddings=[2, [0, 3], [0, 5], [0, 10]],
        act_cfg=dict(type="GELU"),
        norm_cfg=dict(type="BN"),
        init_cfg=dict(type="Pretrained", checkpoint="data/pretrained/mscan_t_20230227-119e8c9f.pth"),
    ),
    decode_head=dict(
        type=LightHamHead,
        in_channels=[64, 160, 256],
        in_index=[1, 2, 3],
        channels=256,
        ham_channels=256,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=dict(type="GN", num_groups=32),
        align_corners=False,
        loss_decode=dict(type=CrossEntropyLoss, use_sigmoid=False, loss_weight=1.0),
        ham_kwargs=dict(MD_S=1, MD_R=16, train_steps=6, eval_steps=7, inv_t=100, rand_init=True),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=AdamW, lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(
        custom_keys=dict(pos_block=dict(decay_mult=0.0), norm=dict(decay_mult=0.0), head=dict(lr_mult=10.0))
    ),
)
param_scheduler = [
    dict(type=LinearLR, by_epoch=False, begin=0, end=1500, start_factor=1e-6),
    dict(type=PolyLR, by_epoch=False, begin=1500, end=max_iters, power=1.0, eta_min=0.0),
]
train_cfg = dict(type=IterBasedTrainLoop, max_iters=max_iters, val_interval=16_000)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
custom_hooks = [dict(type=ExactResumeHook)]
auto_scale_lr = dict(enable=False, base_batch_size=16)
