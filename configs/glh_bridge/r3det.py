"""R3Det with a ResNet-50 on native patches of GLH-Bridge (mmrotate's, oc)."""

from mmengine.config import read_base

with read_base():
    from ..arc.retinanet_r50_plain import *
    from .._base_.glh_bridge import *

from mmdet.models.losses import SmoothL1Loss
from mmrotate.models.dense_heads import R3Head, R3RefineHead
from mmrotate.models.detectors import RefineSingleStageDetector
from mmrotate.models.task_modules.prior_generators import PseudoRotatedAnchorGenerator

strides = [8, 16, 32, 64, 128]
plain_coder = dict(
    type=DeltaXYWHTRBBoxCoder,
    angle_version="oc",
    norm_factor=None,
    edge_swap=False,
    proj_xy=False,
    target_means=(0.0, 0.0, 0.0, 0.0, 0.0),
    target_stds=(1.0, 1.0, 1.0, 1.0, 1.0),
)
dense_head = dict(
    num_classes=1,
    in_channels=256,
    stacked_convs=4,
    feat_channels=256,
    loss_cls=dict(type=FocalLoss, use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
    loss_bbox=dict(type=SmoothL1Loss, beta=0.11, loss_weight=1.0),
)
assigner = model["train_cfg"]["assigner"]
without_sampler = dict(allowed_border=-1, pos_weight=-1, debug=False)
model = dict(
    type=RefineSingleStageDetector,
    data_preprocessor=model["data_preprocessor"],
    backbone=model["backbone"],
    neck=model["neck"],
    bbox_head_init=dict(
        type=R3Head,
        anchor_generator=dict(
            type=FakeRotatedAnchorGenerator,
            angle_version="oc",
            octave_base_scale=4,
            scales_per_octave=3,
            ratios=[1.0, 0.5, 2.0],
            strides=strides,
        ),
        bbox_coder={**plain_coder, "use_box_type": False},
        **dense_head,
    ),
    bbox_head_refine=[
        dict(
            type=R3RefineHead,
            frm_cfg=dict(type="FRM", feat_channels=256, strides=strides),
            anchor_generator=dict(type=PseudoRotatedAnchorGenerator, strides=strides),
            bbox_coder=plain_coder,
            **dense_head,
        )
    ],
    train_cfg=dict(
        init=dict(assigner=assigner, **without_sampler),
        refine=[dict(assigner={**assigner, "pos_iou_thr": 0.6, "neg_iou_thr": 0.5}, **without_sampler)],
        stage_loss_weights=[1.0],
    ),
    test_cfg=model["test_cfg"],
)
