"""SiamCUT on KITTI with rare categories drawn more often: a frame of a category with n frames counts as n^-0.5."""

from mmengine.config import read_base

with read_base():
    from ..adaformer import *

train_dataloader.dataset.update(balance=0.5)
