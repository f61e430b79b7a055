"""BEVFormer v2 shrunk to the built-in streets, for a CPU, without initial weights. What it learns was not measured yet.

Data: ``python tools/make_demo_data.py driving --out data/demo/driving --num-train 40 --num-val 5 --width 256``.
"""

from mmengine.config import read_base

with read_base():
    from ..bevformer_v2 import *

max_epochs = 8
data_root = "data/demo/driving"
crop = dict(type=CropResizeRig, size=(144, 256), top=40, heights=(104,))
train_pipeline = [
    dict(type=SeedAugmentation),
    dict(type=LoadRigImages),
    dict(type=LoadBoxes3D),
    dict(type=AugmentGround, max_rotation=22.5, scales=(0.95, 1.05), flip_x_prob=0.0, flip_y_prob=0.0),
    filter_boxes,
    crop,
    dict(type=PackRig),
]
test_pipeline = [dict(type=LoadRigImages), crop, dict(type=PackRig)]

train_dataloader.update(batch_size=4, num_workers=1)
train_dataloader.dataset.update(data_root=data_root, pipeline=train_pipeline)
val_dataloader.update(num_workers=1, batch_size=4)
val_dataloader.dataset.update(data_root=data_root, pipeline=test_pipeline)
test_dataloader = val_dataloader
val_evaluator.data_root = data_root
test_evaluator = val_evaluator

model.img_backbone.update(depth=18, stem_channels=16, base_channels=16)
model.img_neck.update(in_channels=[32, 64, 128], out_channels=64)
model.pts_bbox_head.update(embed_dims=64, bev_size=(50, 50), num_queries=100, num_groups=3)
model.pts_bbox_head.transformer.update(
    num_heads=4,
    num_levels=3,
    num_spatial_points=4,
    feedforward_channels=128,
    num_encoder_layers=2,
    num_decoder_layers=3,
    dropout=0.0,
)
model.fcos3d_bbox_head.update(in_channels=64, num_convs=2)
model.init_cfg = None

optim_wrapper.optimizer.lr = 1e-3
param_scheduler = [
    dict(type=LinearLR, by_epoch=False, begin=0, end=50, start_factor=0.1),
    dict(type=MultiStepLR, by_epoch=True, begin=0, end=max_epochs, milestones=[7], gamma=0.1),
]
train_cfg.update(max_epochs=max_epochs, val_interval=max_epochs)
default_hooks.checkpoint.update(interval=1, max_keep_ckpts=2)
default_hooks.logger.interval = 20
