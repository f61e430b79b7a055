"""The single-scale twin of ``hbd_net.py``: Oriented R-CNN on native patches alone, for as long as all its stages."""

from mmengine.config import read_base

with read_base():
    from ..hbd_net.native import *
    from .._base_.bridges_demo import *

max_epochs = 6
train_dataloader.num_workers = 1
train_dataloader["dataset"].data_root = data_root
test_dataloader.update(dict(batch_size=8, num_workers=1))
test_dataloader["dataset"].data_root = data_root
test_evaluator.label_folder = label_folder
model.update(
    dict(
        backbone=small_backbone,
        neck=small_neck,
        rpn_head=small_rpn_head,
        roi_head=small_roi_head,
        train_cfg=small_train_cfg,
        test_cfg=small_test_cfg,
    )
)
optim_wrapper.optimizer = adam
auto_scale_lr.enable = False
train_cfg.max_epochs = max_epochs
param_scheduler = [
    dict(type=LinearLR, by_epoch=False, begin=0, end=60, start_factor=0.02),
    dict(type=MultiStepLR, by_epoch=True, begin=0, end=max_epochs, milestones=[5], gamma=0.1),
]
default_hooks.logger.interval = 20
