"""UPerNet, ResNet-50, ADE20K, without FreqFusion."""

from mmengine.config import read_base

with read_base():
    from .segnext_mscan_t_plain import *

from mmseg.models import FCNHead, ResNetV1c, UPerHead
from torch.optim import SGD

norm_cfg = dict(type="SyncBN")
model.backbone = dict(
    type=ResNetV1c,
    depth=50,
    num_stages=4,
    out_indices=(0, 1, 2, 3),
    dilations=(1, 1, 1, 1),
    strides=(1, 2, 2, 2),
    norm_cfg=norm_cfg,
    norm_eval=False,
    style="pytorch",
    contract_dilation=True,
    init_cfg=dict(type="Pretrained", checkpoint="data/pretrained/resnet50_v1c-2cccc1ad.pth"),
)
model.decode_head = dict(
    type=UPerHead,
    in_channels=[256, 512, 1024, 2048],
    in_index=[0, 1, 2, 3],
    pool_scales=(1, 2, 3, 6),
    channels=512,
    dropout_ratio=0.1,
    num_classes=150,
    norm_cfg=norm_cfg,
    align_corners=False,
    loss_decode=dict(type=CrossEntropyLoss, use_sigmoid=False, loss_weight=1.0),
)
model.auxiliary_head = dict(
    type=FCNHead,
    in_channels=1024,
    in_index=2,
    channels=256,
    num_convs=1,
    concat_input=False,
    dropout_ratio=0.1,
    num_classes=150,
    norm_cfg=norm_cfg,
    align_corners=False,
    loss_decode=dict(type=CrossEntropyLoss, use_sigmoid=False, loss_weight=0.4),
)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.01, momentum=0.9, weight_decay=0.0005))
param_scheduler = [dict(type=PolyLR, by_epoch=False, begin=0, end=max_iters, power=0.9, eta_min=1e-4)]
