"""MoCUT on Waymo, one set of weights for all categories."""

from mmengine.config import read_base

with read_base():
    from .mocut_kitti import *
    from .._base_.waymo_tracklets import *

samples = train_dataloader.dataset
samples.pop("tracklets")
samples.update(tracklets=waymo_tracklets["train"], cache_dir=waymo_cache)
for loader, split in ((val_dataloader, "val"), (test_dataloader, "test")):
    loader.dataset.pop("tracklets")
    loader.dataset.update(tracklets=waymo_tracklets[split])
