"""CATNet (RetinaNet), ResNet-50, DIOR, 36 epochs. Published: 74.0 AP50."""

from mmengine.config import read_base

with read_base():
    from .._base_.catnet_3x import *
    from .._base_.catnet_r50 import *
    from .._base_.dior import *

model.bbox_head.num_classes = len(classes)
optim_wrapper.optimizer.lr = 0.005
