"""UnifyGeo on VIGOR same-area, 40 epochs and 10 with the re-ranking loss, 4 GPUs x 32 pairs. Published: 39.64 LF@1m.

The recipe is Sample4Geo's as far as it is published; see the README for what is ours.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.default_runtime import *
    from ._base_.vigor import *

from mmengine.optim import CosineAnnealingLR, LinearLR, OptimWrapper
from mmengine.runner import EpochBasedTrainLoop
from torch.optim import AdamW

from projects.unifygeo.loops import GeoTestLoop, GeoValLoop, HardNegativesHook, RerankStageHook
from projects.unifygeo.model import UnifyGeo, ViewPreprocessor

max_epochs, rerank_epochs = 40, 10

model = dict(
    type=UnifyGeo,
    data_preprocessor=dict(type=ViewPreprocessor),
    network=dict(
        view=dict(
            encoder_channels=(96, 192, 384),
            encoder_depths=(3, 3, 9),
            channels=768,
            aggregator="soa_gem",
            reduction=2,
            descriptor_norm=True,
            output_norm=False,
            sharing="encoder",
        ),
        decoder=dict(
            channels=(768, 384, 192, 96),
            ground_channels=(32, 16, 8, 4),
            ground_size=(12, 24),
            head_channels=(48, 24),
            last_channels=8,
        ),
    ),
    label_sigma=4.0,
    match_levels=(0, 1, 2, 3),
    match_temperature=0.1,
    match_threshold=1e-2,
    label_smoothing=0.1,
    localization_weight=1.0,
    matching_weight=1.0,
    rerank_weight=1.0,
    rerank_topk=5,
    # ConvNeXt-Tiny of ImageNet-22k, through tools/convert_checkpoint.py.
    init_cfg=dict(type="Pretrained", checkpoint="data/pretrained/unifygeo_convnext_tiny.pth"),
)

optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=AdamW, lr=1e-3, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys={"ground.encoder": dict(lr_mult=0.1), "satellite.encoder": dict(lr_mult=0.1)}),
    clip_grad=dict(type="value", clip_value=100.0),
)
param_scheduler = [
    dict(type=LinearLR, by_epoch=True, begin=0, end=1, start_factor=1e-3, convert_to_iter_based=True),
    dict(
        type=CosineAnnealingLR,
        by_epoch=True,
        begin=1,
        end=max_epochs,
        T_max=max_epochs - 1,
        eta_min_ratio=0.1,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=max_epochs + rerank_epochs, val_interval=4)
val_cfg = dict(type=GeoValLoop, gallery=gallery)
test_cfg = dict(type=GeoTestLoop, gallery=gallery)
val_evaluator = test_evaluator = []
custom_hooks = [
    dict(type=HardNegativesHook, gallery=train_gallery, pairs=train_pairs, interval=4),
    dict(type=RerankStageHook, begin=max_epochs),
]
default_hooks.pop("visualization")
default_hooks.checkpoint.update(by_epoch=True, interval=2)
log_processor.by_epoch = True
randomness = dict(seed=1)
auto_scale_lr = dict(enable=False, base_batch_size=128)
