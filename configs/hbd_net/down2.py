"""Second stage of HBD-Net: patches of images at 1/2 of their size, 12 epochs from the weights of the stage before."""

from mmengine.config import read_base

with read_base():
    from .native import *

from projects.hbd_net.head import ShapeSensitiveBBoxHead

max_epochs = 12
model.backbone.init_cfg = None
# As in the branch that these weights become; the released stages train with a plain head.
model.roi_head.bbox_head.update(dict(type=ShapeSensitiveBBoxHead, ratio="long_short"))
load_from = "work_dirs/hbd_net/native/epoch_18.pth"
train_dataloader["dataset"].update(
    dict(ann_file="train/down2/annfiles/", data_prefix=dict(img_path="train/down2/images/")),
)
test_dataloader["dataset"].factors = (2,)
train_cfg.max_epochs = max_epochs
param_scheduler[1].update(dict(end=max_epochs, milestones=[8, 11]))
