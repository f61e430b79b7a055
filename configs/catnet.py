"""CAT Mask R-CNN, ResNet-50, iSAID, 36 epochs ("3x"), 4 GPUs x 2 images. Published: 45.1 box AP, 37.2 mask AP."""

from mmengine.config import read_base

with read_base():
    from ._base_.cat_mask_rcnn_r50 import *
    from ._base_.isaid import *
    from ._base_.schedule_1x import *

model.roi_head.bbox_head.num_classes = len(classes)
model.roi_head.mask_head.num_classes = len(classes)

max_epochs = 36
optim_wrapper.optimizer.lr = 0.01  # for 8 images a step
param_scheduler[1].end = max_epochs
param_scheduler[1].milestones = [28, 34]
train_cfg.max_epochs = max_epochs
auto_scale_lr.base_batch_size = 8
