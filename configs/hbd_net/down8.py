"""Fourth stage of HBD-Net: patches of images at 1/8 of their size, 4 epochs from the weights of the stage before."""

from mmengine.config import read_base

with read_base():
    from .down4 import *

max_epochs = 4
load_from = "work_dirs/hbd_net/down4/epoch_6.pth"
train_dataloader["dataset"].update(
    dict(ann_file="train/down8/annfiles/", data_prefix=dict(img_path="train/down8/images/")),
)
test_dataloader["dataset"].factors = (8,)
train_cfg.max_epochs = max_epochs
param_scheduler[1].update(dict(end=max_epochs, milestones=[2, 3]))
