"""HBD-Net on the built-in bridges: both branches and their fusion, from two stages; minutes on two cores.

Data, and the stages before this one: projects/hbd_net/README.md. Its single-scale twin is ``hbd_net_plain.py``.
"""

from mmengine.config import read_base

with read_base():
    from ..hbd_net.fuse_at_test import *
    from .._base_.bridges_demo import *

folder_kind.update(dict(patch=256, gap=50))
max_epochs = 1
load_from = "work_dirs/demo/hbd_net_merged.pth"
train_dataloader.update(dict(batch_size=4, num_workers=1))
# Here all patches have context, in training as in testing.
train_dataloader["dataset"].update(dict(data_root=data_root, context_threshold=1))
test_dataloader.update(dict(batch_size=8, num_workers=1))
test_dataloader["dataset"].data_root = data_root
test_evaluator.label_folder = label_folder
model.update(
    dict(
        backbone=small_backbone,
        neck=small_neck,
        rpn_head=small_rpn_head,
        roi_head=small_roi_head,
        global_roi_head=small_roi_head,
        fusion=dict(channels=few_channels, most=2),
        train_cfg=small_train_cfg,
        test_cfg=small_test_cfg,
    )
)
optim_wrapper.optimizer = {**adam, "lr": 5e-4}
auto_scale_lr.enable = False
train_cfg.max_epochs = max_epochs
param_scheduler = [
    dict(type=LinearLR, by_epoch=False, begin=0, end=30, start_factor=0.02),
    dict(type=MultiStepLR, by_epoch=False, begin=0, end=10000, milestones=[170], gamma=0.1),
]
default_hooks.logger.interval = 20
