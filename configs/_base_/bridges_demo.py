"""What the demos of HBD-Net change: the built-in bridges in patches of 256 pixels, few channels, and Adam.

Data: projects/hbd_net/README.md.
"""

from mmengine.optim import LinearLR, MultiStepLR
from torch.optim import AdamW

data_root = "data/demo/bridge_patches/"
label_folder = "data/demo/bridges/val/labelTxt"

few_channels = 64
small_backbone = dict(
    num_stages=3,
    strides=(1, 2, 2),
    dilations=(1, 1, 1),
    out_indices=(0, 1, 2),  # strides 4, 8 and 16
    base_channels=16,
    stem_channels=16,
    frozen_stages=-1,
    norm_eval=False,
    init_cfg=None,
)
small_neck = dict(in_channels=[64, 128, 256], out_channels=few_channels, num_outs=4)
small_rpn_head = dict(
    in_channels=few_channels,
    feat_channels=few_channels,
    anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32]),
)
small_roi_head = dict(
    bbox_roi_extractor=dict(out_channels=few_channels, featmap_strides=[4, 8, 16]),
    bbox_head=dict(in_channels=few_channels, fc_out_channels=256),
)
few_proposals = dict(nms_pre=500, max_per_img=200)
small_train_cfg = dict(rpn_proposal=few_proposals, rcnn=dict(sampler=dict(num=128)))
small_test_cfg = dict(rpn=few_proposals, rcnn=dict(max_per_img=100))

# Without initial weights Adam gets further in this time than SGD.
adam = dict(type=AdamW, lr=1e-3, weight_decay=1e-4)
