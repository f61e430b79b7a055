"""What the demos of HBD-Net change: the built-in bridges in patches of 256 pixels, few channels, and Adam.

Data: projects/hbd_net/README.md.
"""

from mmengine.optim import LinearLR, MultiStepLR
from torch.optim import AdamW

data_root = "data/demo/bridge_patches/"
label_folder = "data/demo/bridges/val/labelTxt"

few_channels = 48
small_backbone = dict(
    depth=18,
    num_stages=3,
    strides=(1, 2, 2),
    dilations=(1, 1, 1),
    out_indices=(0, 1, 2),  # strides 4, 8 and 16
    base_channels=24,
    stem_channels=24,
    frozen_stages=-1,
    norm_eval=False,
    init_cfg=None,
)
small_neck = dict(in_channels=[24, 48, 96], out_channels=few_channels, num_outs=4)
# Bridges are up to 35 times as long as wide, so that the boxes around upright ones are as well, and few windows hold a
# whole long one: anchors of more shapes, also at the edges of windows, and at a lower overlap.
small_rpn_head = dict(
    in_channels=few_channels,
    feat_channels=few_channels,
    anchor_generator=dict(scales=[4, 8], ratios=[0.2, 0.5, 1.0, 2.0, 5.0], strides=[4, 8, 16, 32]),
)
small_roi_head = dict(
    bbox_roi_extractor=dict(out_channels=few_channels, featmap_strides=[4, 8, 16]),
    bbox_head=dict(in_channels=few_channels, fc_out_channels=256),
)
few_proposals = dict(nms_pre=500, max_per_img=200)
small_train_cfg = dict(
    rpn=dict(assigner=dict(pos_iou_thr=0.5), allowed_border=-1),
    rpn_proposal=few_proposals,
    rcnn=dict(
        assigner=dict(pos_iou_thr=0.4, neg_iou_thr=0.4, min_pos_iou=0.4),
        sampler=dict(num=64),
    ),
)
small_test_cfg = dict(rpn=few_proposals, rcnn=dict(max_per_img=100))

# Without initial weights Adam gets further in this time than SGD.
adam = dict(type=AdamW, lr=1e-3, weight_decay=1e-4)
