"""M2-Track on KITTI's pedestrians, with the batch its authors recommend for them. Published there: 60.61 / 89.39."""

from mmengine.config import read_base

with read_base():
    from .m2track_kitti_car import *

tracklets.update(categories=("Pedestrian",))
for split, loader in (("train", motion_dataloader), ("val", val_dataloader), ("test", test_dataloader)):
    loader.dataset.update(tracklets=dict(**tracklets, split=split))
motion_dataloader.update(batch_size=64)
train_dataloader = motion_dataloader
