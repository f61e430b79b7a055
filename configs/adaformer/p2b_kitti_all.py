"""The control of SiamCUT: P2B trained on all four categories at once."""

from mmengine.config import read_base

with read_base():
    from .p2b_kitti_car import *

tracklets.update(categories=CATEGORIES)
for split, loader in (("train", siamese_dataloader), ("val", val_dataloader), ("test", test_dataloader)):
    loader.dataset.update(tracklets=dict(**tracklets, split=split))
train_dataloader = siamese_dataloader
