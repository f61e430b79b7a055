"""The backbones that ARC is compared with: ImageNet-trained ResNets of torchvision."""

from mmdet.models import ResNet

plain_r50 = dict(
    type=ResNet,
    depth=50,
    num_stages=4,
    out_indices=(0, 1, 2, 3),
    frozen_stages=1,
    norm_cfg=dict(type="BN", requires_grad=True),
    norm_eval=True,
    style="pytorch",
    init_cfg=dict(type="Pretrained", checkpoint="data/pretrained/resnet50-0676ba61.pth"),
)
plain_r101 = {
    **plain_r50,
    "depth": 101,
    "init_cfg": dict(type="Pretrained", checkpoint="data/pretrained/resnet101-63fe2227.pth"),
}
