"""The control of MoCUT: M2-Track trained on all four categories at once."""

from mmengine.config import read_base

with read_base():
    from .m2track_kitti_car import *

tracklets.update(categories=CATEGORIES)
for split, loader in (("train", motion_dataloader), ("val", val_dataloader), ("test", test_dataloader)):
    loader.dataset.update(tracklets=dict(**tracklets, split=split))
train_dataloader = motion_dataloader
