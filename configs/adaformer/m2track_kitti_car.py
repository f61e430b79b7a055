"""M2-Track on KITTI's cars as Open3DSOT trains it. Published there: 67.43 / 81.04."""

from mmengine.config import read_base

with read_base():
    from .._base_.kitti_tracklets import *
    from .._base_.tracking3d_runtime import *

from projects.adaformer.trackers import MotionTracker3D, SegPointNet

tracklets.update(categories=("Car",), calibration="released")
area.update(margin=2.0)
model = dict(type=MotionTracker3D, segmenter=dict(type=SegPointNet), losses="m2track", points=1024, area=area)
motion_dataloader.update(batch_size=100)
motion_dataloader.dataset.update(area=area)
for split, loader in (("train", motion_dataloader), ("val", val_dataloader), ("test", test_dataloader)):
    loader.dataset.update(tracklets=dict(**tracklets, split=split))
train_dataloader = motion_dataloader
param_scheduler = [dict(type=MultiStepLR, milestones=[20, 40, 60, 80, 100, 120, 140, 160], gamma=0.1)]
train_cfg.update(max_epochs=180)
