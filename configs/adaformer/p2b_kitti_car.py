"""P2B on KITTI's cars as Open3DSOT trains it, with its loss and its boxes."""

from mmengine.config import read_base

with read_base():
    from .._base_.kitti_tracklets import *
    from .._base_.tracking3d_runtime import *

from projects.adaformer.pointnet2 import PointNet2SSG
from projects.adaformer.trackers import SiamTracker3D

tracklets.update(categories=("Car",), calibration="released")
area.update(margin=2.0)
model = dict(
    type=SiamTracker3D,
    backbone=dict(
        type=PointNet2SSG,
        in_channels=0,
        dims=((64, 64, 128), (128, 128, 256), (256, 256, 256)),
        radii=(0.3, 0.5, 0.7),
        num_samples=32,
    ),
    network=dict(channels=256, vote_channels=256, num_proposals=64, vote_radius=0.3, vote_samples=16),
    losses="p2b_released",
    template_points=512,
    search_points=1024,
    size_channels=False,
    degrees=True,
    use_z=False,
    area=area,
)
siamese_dataloader.update(batch_size=50)
siamese_dataloader.dataset.update(area=area, size_channels=False, degrees=True)
for split, loader in (("train", siamese_dataloader), ("val", val_dataloader), ("test", test_dataloader)):
    loader.dataset.update(tracklets=dict(**tracklets, split=split))
train_dataloader = siamese_dataloader
param_scheduler = [dict(type=MultiStepLR, milestones=[20, 40], gamma=0.1)]
train_cfg.update(max_epochs=60)
