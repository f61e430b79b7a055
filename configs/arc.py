"""ARC-R50 (n = 4) in Oriented R-CNN, DOTA-v1.0 single scale, 12 epochs, one GPU x 2 images. Published: 77.35 AP50."""

from mmengine.config import read_base

with read_base():
    from ._base_.dota_runtime import *
    from ._base_.dota import *
    from ._base_.oriented_rcnn_r50 import *

from mmengine.optim import LinearLR, MultiStepLR, OptimWrapper
from mmengine.runner import EpochBasedTrainLoop
from torch.optim import SGD

from projects.arc.backbone import ARCResNet
from projects.arc.extractor import ExtendedRotatedRoIExtractor

max_epochs = 12

model.backbone.update(
    dict(
        type=ARCResNet,
        replace=((), None, None, None),  # all 3x3 convolutions of the last three stages
        kernel_number=4,
        init_cfg=dict(type="Pretrained", checkpoint="data/pretrained/ARC_ResNet50_xFFF_n4.pth"),
    )
)
model.roi_head.bbox_roi_extractor.update(
    dict(type=ExtendedRotatedRoIExtractor, extend_factor=(1.4, 1.2))  # height, width
)

optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=SGD, lr=0.005, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.5))),
    clip_grad=dict(max_norm=35, norm_type=2),
)
param_scheduler = [
    dict(type=LinearLR, by_epoch=False, begin=0, end=500, start_factor=0.001),
    dict(type=MultiStepLR, by_epoch=True, begin=0, end=max_epochs, milestones=[8, 11], gamma=0.1),
]
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=max_epochs)
auto_scale_lr = dict(enable=False, base_batch_size=2)
