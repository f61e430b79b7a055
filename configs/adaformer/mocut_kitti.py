"""MoCUT on KITTI, one set of weights for all four categories. Published: 65.8 / 85.0, about +3 over M2-Track."""

from mmengine.config import read_base

with read_base():
    from .._base_.kitti_tracklets import *
    from .._base_.tracking3d_runtime import *

from projects.adaformer.backbone import AdaFormer
from projects.adaformer.trackers import AdaFormerSegmenter, MotionTracker3D

model = dict(
    type=MotionTracker3D,
    segmenter=dict(
        type=AdaFormerSegmenter,
        backbone=dict(
            type=AdaFormer,
            in_channels=11,
            dims=((64, 64, 128), (128, 128, 256), (256, 256, 256)),
            radii=(0.3, 0.5, 0.7),
            num_samples=32,
            num_neighbours=16,
        ),
        decoder=((256, 256), (256, 128), (128, 128)),
    ),
    losses="unified",
    points=1024,
    area=area,
)
train_dataloader = motion_dataloader
