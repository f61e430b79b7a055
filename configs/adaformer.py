"""SiamCUT on KITTI, one set of weights for all four categories. Published: about +12 Success over P2B."""

from mmengine.config import read_base

with read_base():
    from ._base_.kitti_tracklets import *
    from ._base_.tracking3d_runtime import *

from projects.adaformer.backbone import AdaFormer
from projects.adaformer.trackers import SiamTracker3D

model = dict(
    type=SiamTracker3D,
    backbone=dict(
        type=AdaFormer,
        in_channels=3,
        dims=((64, 64, 128), (128, 128, 256), (256, 256, 256)),
        radii=(0.3, 0.5, 0.7),
        num_samples=32,
        num_neighbours=16,
    ),
    network=dict(channels=256, vote_channels=256, num_proposals=64, vote_radius=0.3, vote_samples=16),
    losses="unified",
    template_points=512,
    search_points=1024,
    size_channels=True,
    area=area,
)
train_dataloader = siamese_dataloader
