"""SiamCUT on nuScenes' key frames, one set of weights for all categories."""

from mmengine.config import read_base

with read_base():
    from ..adaformer import *
    from .._base_.nuscenes_tracklets import *

area.update(min_margin=nuscenes_margin)
model.update(area=area)
samples = train_dataloader.dataset
samples.pop("tracklets")
samples.update(tracklets=nuscenes_tracklets["train"], cache_dir=nuscenes_cache, area=area)
for loader, split in ((val_dataloader, "val"), (test_dataloader, "test")):
    loader.dataset.pop("tracklets")
    loader.dataset.update(tracklets=nuscenes_tracklets[split])
