"""UnifyGeo shrunk to the built-in cities: learns on two CPU cores in about four minutes, without initial weights.

Data: ``python tools/make_demo_data.py cities --out data/demo/cities --train-cameras 400``.
"""

from mmengine.config import read_base

with read_base():
    from ..unifygeo import *

max_epochs, rerank_epochs = 24, 8
lists = dict(
    data_root="data/demo/cities",
    cities=("Ashford", "Birchwood"),
    metres_per_pixel=dict(Ashford=0.11, Birchwood=0.11),
)
load_views = dict(type=LoadViews, ground_size=(96, 192), satellite_size=(96, 96))
train_pipeline = [
    dict(type=SeedAugmentation),
    load_views,
    dict(type=ViewPhotometry, holes_prob=0.1),
    dict(type=JointFlipTurn),
    dict(type=PackViews),
]
test_pipeline = [load_views, dict(type=PackViews)]

train_dataloader.batch_size = 16
train_dataloader.num_workers = 1
train_dataloader.batch_sampler.update(select=8, reach=24)
train_dataloader.dataset.update(lists, pipeline=train_pipeline)
val_dataloader.num_workers = gallery.num_workers = train_pairs.num_workers = train_gallery.num_workers = 1
val_dataloader.dataset.update(lists, pipeline=test_pipeline)
test_dataloader = val_dataloader
gallery.dataset.update(lists, pipeline=test_pipeline)
train_pairs.dataset.update(lists, pipeline=test_pipeline)
train_gallery.dataset.update(lists, pipeline=test_pipeline)

folder_kind.update(ground_size=(96, 192), tile_side=96)
model.network = dict(
    view=dict(encoder_channels=(12, 24, 48), encoder_depths=(1, 1, 2), channels=96),
    decoder=dict(channels=(96, 48, 24, 12), ground_channels=(16, 8, 4, 2), ground_size=(3, 6), head_channels=(12, 8)),
)
model.label_sigma = 2.0
model.init_cfg = None
optim_wrapper.optimizer.lr = 2e-3
optim_wrapper.paramwise_cfg = None
param_scheduler = [
    dict(type=LinearLR, by_epoch=True, begin=0, end=1, start_factor=0.05, convert_to_iter_based=True),
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
train_cfg.update(max_epochs=max_epochs + rerank_epochs, val_interval=5)
val_cfg.gallery = gallery
test_cfg.gallery = gallery
custom_hooks = [
    dict(type=HardNegativesHook, gallery=train_gallery, pairs=train_pairs, interval=4, candidates=26, keep=24),
    dict(type=RerankStageHook, begin=max_epochs),
]
default_hooks.checkpoint.update(interval=5, max_keep_ckpts=2)
default_hooks.logger.interval = 20
