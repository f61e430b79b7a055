"""FreqFusion in the pyramid of a small segmenter, on the built-in regions: two CPU cores, about three minutes.

Data: ``python tools/make_demo_data.py regions --out data/demo/regions --num-train 1000 --num-val 100``.
``freqfusion_plain.py`` is its twin without.
"""

from mmengine.config import read_base

with read_base():
    from ..freqfusion import *

from mmseg.models import FCNHead

from perception.datasets.segmentation import SegmentationFolders
from projects.freqfusion.neck import FreqFusionFPN

data_root = "data/demo/regions/"
crop_size = (96, 96)
max_iters = 1000

train_pipeline = [
    dict(type=SeedAugmentation),
    dict(type=LoadImage),
    dict(type=LoadSegMapAnnotations),
    dict(type=RandomCrop, crop_size=crop_size),
    dict(type=RandomFlip, prob=0.5),
    dict(type=PackSegInputs),
]
test_pipeline = [
    dict(type=LoadImage),
    dict(type=ResizeToMultiple, size_divisor=32),
    dict(type=LoadSegMapAnnotations),
    dict(type=PackSegInputs),
]
metainfo = dict(
    classes=("water", "meadow", "gravel", "paving", "planks", "path", "pole", "disc", "ring", "star"),
    palette=[
        *[(60, 130, 240), (90, 190, 70), (200, 170, 110), (150, 150, 160), (150, 90, 50)],
        *[(250, 230, 60), (230, 60, 70), (250, 130, 30), (180, 80, 220), (40, 220, 200)],
    ],
)
dataset = dict(
    type=SegmentationFolders,
    data_root=data_root,
    metainfo=metainfo,
    img_suffix=".jpg",
    seg_map_suffix=".png",
    reduce_zero_label=True,
)
train_dataloader.update(
    dict(
        batch_size=8,
        num_workers=1,
        dataset=dict(
            **dataset,
            data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
            pipeline=train_pipeline,
        ),
    )
)
val_dataloader.update(
    dict(
        num_workers=1,
        dataset=dict(
            **dataset,
            data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
            pipeline=test_pipeline,
        ),
    )
)
test_dataloader = val_dataloader

model.update(
    dict(
        data_preprocessor=dict(size=crop_size),
        backbone=dict(embed_dims=[24, 32, 64, 128], depths=[1, 1, 1, 1], mlp_ratios=[4, 4, 4, 4], init_cfg=None),
        neck=dict(
            type=FreqFusionFPN,
            in_channels=[24, 32, 64, 128],
            out_channels=64,
            num_outs=4,
            compress_ratio=4,
            feature_resample=True,
        ),
    )
)
# The finest map of the pyramid alone is classified, so that all depends on how it was fused.
model.decode_head = dict(
    type=FCNHead,
    in_channels=64,
    in_index=0,
    channels=64,
    num_convs=1,
    concat_input=False,
    dropout_ratio=0.0,
    num_classes=10,
    norm_cfg=dict(type="GN", num_groups=8),
    align_corners=False,
    loss_decode=dict(type=CrossEntropyLoss, use_sigmoid=False, loss_weight=1.0),
)
# Without initial weights the backbone learns as fast as the head.
optim_wrapper.optimizer.lr = 2e-3
optim_wrapper.paramwise_cfg.custom_keys.head.lr_mult = 1.0
param_scheduler = [
    dict(type=LinearLR, by_epoch=False, begin=0, end=30, start_factor=0.02),
    dict(type=PolyLR, by_epoch=False, begin=30, end=max_iters, power=1.0, eta_min=0.0),
]
train_cfg.max_iters = max_iters
train_cfg.val_interval = max_iters
auto_scale_lr.base_batch_size = 8
default_hooks.checkpoint.interval = 200
default_hooks.checkpoint.max_keep_ckpts = 1
default_hooks.logger.interval = 20
