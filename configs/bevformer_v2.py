"""BEVFormer v2, ResNet-50, one frame, without augmentation, 24 epochs, 16 GPUs x 1. Published: 42.6 NDS, 35.1 mAP."""

from mmengine.config import read_base

with read_base():
    from ._base_.default_runtime import *
    from ._base_.nuscenes_rigs import *

from mmdet.models import FPN, ResNet
from mmengine.optim import LinearLR, MultiStepLR, OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, TestLoop, ValLoop
from torch.optim import AdamW

from perception.engine.epochs import ExactEpochResumeHook
from perception.inference.rigs.kind import Rigs
from projects.bevformer_v2.detector import BEVFormerV2
from projects.bevformer_v2.head import BEVFormerHead
from projects.bevformer_v2.losses import BEVCriterion
from projects.bevformer_v2.perspective.head import NuscenesDD3D
from projects.bevformer_v2.perspective.losses import PerspectiveCriterion
from projects.bevformer_v2.preprocessor import RigPreprocessor

model = dict(
    type=BEVFormerV2,
    data_preprocessor=dict(
        type=RigPreprocessor, mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0), bgr=True, pad_divisor=32
    ),
    img_backbone=dict(
        type=ResNet,
        depth=50,
        num_stages=4,
        out_indices=(1, 2, 3),
        frozen_stages=-1,
        norm_cfg=dict(type="BN", requires_grad=True),
        norm_eval=False,
        style="caffe",
    ),
    img_neck=dict(
        type=FPN,
        in_channels=[512, 1024, 2048],
        out_channels=256,
        start_level=0,
        num_outs=5,
        add_extra_convs="on_output",
        relu_before_extra_convs=True,
    ),
    pts_bbox_head=dict(
        type=BEVFormerHead,
        num_classes=10,
        embed_dims=256,
        bev_size=(200, 200),
        pc_range=pc_range,
        num_queries=900,
        num_groups=1,
        transformer=dict(
            num_heads=8,
            num_cams=6,
            num_levels=4,
            num_pillar_points=4,
            num_temporal_points=4,
            num_spatial_points=8,
            num_decoder_points=4,
            feedforward_channels=512,
            num_encoder_layers=6,
            num_decoder_layers=6,
            frames=(0,),
            dropout=0.1,
        ),
    ),
    criterion=dict(type=BEVCriterion, cls_weight=2.0, bbox_weight=0.75),
    fcos3d_bbox_head=dict(type=NuscenesDD3D, num_classes=10, in_channels=256, strides=(8, 16, 32, 64, 128)),
    # The published models were trained with the released corner loss.
    perspective_criterion=dict(type=PerspectiveCriterion, beta_bug=True),
    perspective_weight=1.0,
    test_cfg=dict(max_boxes=300, center_range=(-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)),
    # ResNet and FPN of an FCOS trained on COCO, as the authors offer it.
    init_cfg=dict(type="Pretrained", checkpoint="data/pretrained/fcos_r50_coco_2mmdet.pth"),
)

max_epochs = 24
optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=AdamW, lr=4e-4, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys=dict(img_backbone=dict(lr_mult=0.5))),
    clip_grad=dict(max_norm=35, norm_type=2),
)
param_scheduler = [
    dict(type=LinearLR, by_epoch=False, begin=0, end=2000, start_factor=1 / 3),
    dict(type=MultiStepLR, by_epoch=True, begin=0, end=max_epochs, milestones=[20], gamma=0.1),
]
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=max_epochs, val_interval=4)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
sync_bn = "torch"  # over all processes; one alone has the six images of a sample
custom_hooks = [dict(type=ExactEpochResumeHook)]
default_hooks.pop("visualization")  # pictures of 2D boxes
default_hooks.checkpoint.update(by_epoch=True, interval=1)
log_processor.by_epoch = True
auto_scale_lr = dict(enable=False, base_batch_size=16)
folder_kind = dict(type=Rigs)
