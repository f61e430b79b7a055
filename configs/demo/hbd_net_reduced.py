"""Second stage of HBD-Net's demo, on patches of reduced levels, from the weights of the first; see ``hbd_net.py``."""

from mmengine.config import read_base

with read_base():
    from .hbd_net_native import *

from mmengine.dataset import ConcatDataset

from projects.hbd_net.head import ShapeSensitiveBBoxHead

max_epochs = 1
load_from = "work_dirs/demo/hbd_net_native/epoch_2.pth"
model.roi_head.bbox_head.type = ShapeSensitiveBBoxHead
patches = train_dataloader["dataset"]
train_dataloader["dataset"] = dict(
    type=ConcatDataset,
    datasets=[
        {**patches, "ann_file": "train/down2/annfiles/", "data_prefix": dict(img_path="train/down2/images/")},
        {**patches, "ann_file": "train/down4/annfiles/", "data_prefix": dict(img_path="train/down4/images/")},
        {**patches, "ann_file": "train/down8/annfiles/", "data_prefix": dict(img_path="train/down8/images/")},
    ],
)
test_dataloader["dataset"].factors = (2, 4, 8)
train_cfg.max_epochs = max_epochs
param_scheduler[1].update(dict(end=max_epochs, milestones=[1]))
