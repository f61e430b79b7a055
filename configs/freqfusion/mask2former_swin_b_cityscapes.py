"""FreqFusion in Mask2Former, Swin-B, Cityscapes."""

from mmengine.config import read_base

with read_base():
    from .._base_.swin_b_384 import *
    from .mask2former_r50_cityscapes import *

model.backbone = swin
model.decode_head.in_channels = [128, 256, 512, 1024]
optim_wrapper.paramwise_cfg.custom_keys.update(swin_keys)
