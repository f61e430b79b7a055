"""Third stage of HBD-Net: patches of images at 1/4 of their size, 6 epochs from the weights of the stage before."""

from mmengine.config import read_base

with read_base():
    from .down2 import *

max_epochs = 6
load_from = "work_dirs/hbd_net/down2/epoch_12.pth"
train_dataloader["dataset"].update(
    dict(ann_file="train/down4/annfiles/", data_prefix=dict(img_path="train/down4/images/")),
)
test_dataloader["dataset"].factors = (4,)
optim_wrapper.optimizer.lr = 0.001
train_cfg.max_epochs = max_epochs
param_scheduler[1].update(dict(end=max_epochs, milestones=[4, 5]))
