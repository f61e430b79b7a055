"""HBD-Net's recipe with few channels, and batches for it."""

import torch
from mmdet.structures import DetDataSample
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from mmrotate.structures.bbox import RotatedBoxes

from perception.engine.config import drop_initial_weights, load_config
from perception.geometry.pyramid import Context
from projects.hbd_net.context import ContextCrops
from tests.conftest import REPOSITORY

CHANNELS = 16
HALF, QUARTER = (0.25, 0.25, 0.75, 0.75), (0.375, 0.375, 0.625, 0.625)


def model(config="hbd_net", seed=0, **changes):
    """The model of a recipe, with a backbone of 8 channels."""
    cfg = load_config(str(REPOSITORY / "configs" / f"{config}.py"), {})
    drop_initial_weights(cfg)
    settings = cfg.model
    settings.backbone.update(base_channels=8, frozen_stages=-1, norm_eval=False)
    settings.neck.update(in_channels=[32, 64, 128, 256], out_channels=CHANNELS)
    for name in ("rpn_head", "bbox_head"):
        if name in settings:
            settings[name].update(in_channels=CHANNELS, feat_channels=32)  # groups of norms have 32 channels
    for name in ("roi_head", "global_roi_head"):
        if name in settings:
            settings[name].bbox_roi_extractor.out_channels = CHANNELS
            settings[name].bbox_head.update(in_channels=CHANNELS, fc_out_channels=32)
    if settings.get("train_cfg"):
        few = dict(nms_pre=200, max_per_img=64)
        settings.train_cfg.rpn_proposal.update(few)
        settings.train_cfg.rcnn.sampler.num = 64
        settings.test_cfg.rpn.update(few)
    if settings.get("fusion"):
        settings.fusion.channels = CHANNELS
    settings.update(changes)
    init_default_scope("mmrotate")
    torch.manual_seed(seed)
    built = MODELS.build(settings)
    built.init_weights()
    return built


def sample(boxes, side=256, **meta):
    """A data sample with rotated boxes."""
    size = dict(img_shape=(side, side), ori_shape=(side, side), scale_factor=(1.0, 1.0))
    found = DetDataSample(metainfo={**size, **meta})
    rows = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 5)
    found.gt_instances = InstanceData(bboxes=RotatedBoxes(rows), labels=torch.zeros(len(rows), dtype=torch.long))
    found.ignored_instances = InstanceData(bboxes=RotatedBoxes(rows[:0]), labels=torch.zeros(0, dtype=torch.long))
    return found


def picture(boxes, side=256):
    """Bright boxes on grey, uint8 (3, side, side)."""
    import cv2

    from perception.geometry.rotated_boxes import box_corners

    rows = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 5)
    pixels = torch.full((side, side, 3), 90, dtype=torch.uint8).numpy()
    for corners in box_corners(rows).numpy():
        cv2.fillPoly(pixels, [corners.round().astype("int32")], (240, 230, 60))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


BRIDGE = [128.0, 128, 340, 24, 0.4]  # longer than its patch
SMALL = [60.0, 190, 40, 14, -0.3]


def reduced(box, factor):
    """A box of the patch as its crop of the image reduced by a factor shows it, in the middle."""
    cx, cy, w, h, angle = box
    return [128 + (cx - 128) / factor, 128 + (cy - 128) / factor, w / factor, h / factor, angle]


def crops(factors=(2, 4)):
    """The context of the patch with BRIDGE."""
    places = [Context(factor, 0, 0, 256, 256, {2: HALF, 4: QUARTER}[factor]) for factor in factors]
    boxes = [[reduced(BRIDGE, factor)] for factor in factors]
    return ContextCrops([picture(one) for one in boxes], places, [sample(one, factor=2) for one in boxes])


def batch(context=((2, 4), None)):
    """Two patches, one with a long bridge, the other with a short one."""
    boxes = [[BRIDGE], [SMALL]]
    data = dict(inputs=[picture(one) for one in boxes], data_samples=[sample(one) for one in boxes])
    if context is not None:
        data["context"] = [None if factors is None else crops(factors) for factors in context]
    return data
