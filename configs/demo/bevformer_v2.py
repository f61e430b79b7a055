"""BEVFormer v2 shrunk to the built-in streets, for a CPU, without initial weights: objects within 32 m, one frame.

Data: ``python tools/make_demo_data.py driving --out data/demo/driving --num-train 200 --num-val 16 --frames 3
--width 256 --samples 1 --columns 240 --crowd 2``.
"""

from mmengine.config import read_base

with read_base():
    from ..bevformer_v2 import *

from mmengine.optim import CosineAnnealingLR

max_epochs = 4
data_root = "data/demo/driving"
pc_range = (-32.0, -32.0, -5.0, 32.0, 32.0, 3.0)
crop = dict(type=CropResizeRig, size=(144, 256), top=48, heights=(96,))
train_pipeline = [
    dict(type=SeedAugmentation),
    dict(type=LoadRigImages),
    dict(type=LoadBoxes3D),
    dict(type=FilterBoxes3D, low=pc_range[:2], high=pc_range[3:5]),
    crop,
    dict(type=PackRig),
]
test_pipeline = [dict(type=LoadRigImages), crop, dict(type=PackRig)]

train_dataloader.update(batch_size=2, num_workers=1)
train_dataloader.dataset.update(data_root=data_root, pipeline=train_pipeline)
val_dataloader.update(num_workers=1, batch_size=4)
val_dataloader.dataset.update(data_root=data_root, pipeline=test_pipeline)
test_dataloader = val_dataloader
val_evaluator.data_root = data_root
test_evaluator = val_evaluator

model.img_backbone.update(depth=18, stem_channels=16, base_channels=16)
model.img_neck.update(in_channels=[32, 64, 128], out_channels=64, num_outs=3)
model.pts_bbox_head.update(embed_dims=64, bev_size=(32, 32), pc_range=pc_range, num_queries=50, num_groups=6)
model.pts_bbox_head.transformer.update(
    num_heads=4,
    num_levels=3,
    num_spatial_points=4,
    feedforward_channels=128,
    num_encoder_layers=2,
    num_decoder_layers=3,
    dropout=0.0,
)
# Objects are small in these images; depths are those of the reference camera, whose pixels are 3.5 times as fine.
model.fcos3d_bbox_head.update(
    in_channels=64, num_convs=1, strides=(8, 16, 32), mean_depths=(60.0, 30.0, 18.0), std_depths=(30.0, 12.0, 8.0)
)
model.perspective_criterion.update(sizes_of_interest=((-1, 32), (32, 64), (64, 1e8)))
model.init_cfg = None

optim_wrapper.optimizer.lr = 2e-3
optim_wrapper.paramwise_cfg = None
param_scheduler = [
    dict(type=LinearLR, by_epoch=False, begin=0, end=100, start_factor=0.1),
    dict(type=CosineAnnealingLR, by_epoch=True, begin=1, end=max_epochs, eta_min=2e-5, convert_to_iter_based=True),
]
train_cfg.update(max_epochs=max_epochs, val_interval=max_epochs)
default_hooks.checkpoint.update(interval=1, max_keep_ckpts=2)
default_hooks.logger.interval = 25
