"""Last stage of HBD-Net: patches of images at 1/16 of their size, 2 epochs from the weights of the stage before."""

from mmengine.config import read_base

with read_base():
    from .down8 import *

max_epochs = 2
load_from = "work_dirs/hbd_net/down8/epoch_4.pth"
train_dataloader["dataset"].update(
    dict(ann_file="train/down16/annfiles/", data_prefix=dict(img_path="train/down16/images/")),
)
test_dataloader["dataset"].factors = (16,)
train_cfg.max_epochs = max_epochs
param_scheduler[1].update(dict(end=max_epochs, milestones=[1]))
