"""Tiny stock models with random weights, and folders of images for them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

COMMON = """
preprocessor = dict(
    type="DetDataPreprocessor", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True,
    pad_size_divisor=32)
backbone = dict(type="ResNet", depth=18, base_channels=8, stem_channels=8, num_stages=4, out_indices=(0, 1, 2, 3))
neck = dict(type="FPN", in_channels=[8, 16, 32, 64], out_channels=16, num_outs=5)
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(128, 96), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
test_dataloader = dict(dataset=dict(type="CocoDataset", pipeline=test_pipeline))
default_scope = "mmdet"
"""

RETINANET = (
    COMMON
    + """
model = dict(
    type="RetinaNet", data_preprocessor=preprocessor, backbone=backbone, neck=neck,
    bbox_head=dict(
        type="RetinaHead", num_classes=3, in_channels=16, stacked_convs=1, feat_channels=16,
        anchor_generator=dict(
            type="AnchorGenerator", octave_base_scale=4, scales_per_octave=2, ratios=[0.5, 1.0, 2.0],
            strides=[4, 8, 16, 32, 64]),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder")),
    test_cfg=dict(nms_pre=200, min_bbox_size=0, score_thr=0.0, nms=dict(type="nms", iou_threshold=0.5),
                  max_per_img=12))
"""
)

FASTER_RCNN = (
    COMMON
    + """
model = dict(
    type="FasterRCNN", train_cfg=None, data_preprocessor=preprocessor, backbone=backbone, neck=neck,
    rpn_head=dict(
        type="RPNHead", in_channels=16, feat_channels=16,
        anchor_generator=dict(type="AnchorGenerator", scales=[4], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64]),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder")),
    roi_head=dict(
        type="StandardRoIHead",
        bbox_roi_extractor=dict(
            type="SingleRoIExtractor", roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=0),
            out_channels=16, featmap_strides=[4, 8, 16, 32]),
        bbox_head=dict(
            type="Shared2FCBBoxHead", in_channels=16, fc_out_channels=32, roi_feat_size=7, num_classes=3,
            bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_stds=[0.1, 0.1, 0.2, 0.2]))),
    test_cfg=dict(
        rpn=dict(nms_pre=100, max_per_img=50, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(score_thr=0.0, nms=dict(type="nms", iou_threshold=0.5), max_per_img=12)))
"""
)

ROTATED = (
    COMMON.replace("LoadAnnotations", "mmdet.LoadAnnotations")
    .replace('"FPN"', '"mmdet.FPN"')
    .replace('"ResNet"', '"mmdet.ResNet"')
    .replace('"DetDataPreprocessor"', '"mmdet.DetDataPreprocessor"')
    .replace('"PackDetInputs"', '"mmdet.PackDetInputs"')
    .replace('"Resize"', '"mmdet.Resize"')
    .replace('"CocoDataset"', '"mmrotate.DOTADataset"')
    .replace('default_scope = "mmdet"', 'default_scope = "mmrotate"')
    + """
model = dict(
    type="mmdet.RetinaNet", data_preprocessor=preprocessor, backbone=backbone, neck=neck,
    bbox_head=dict(
        type="mmdet.RetinaHead", num_classes=3, in_channels=16, stacked_convs=1, feat_channels=16,
        anchor_generator=dict(
            type="FakeRotatedAnchorGenerator", angle_version="le90", octave_base_scale=4, scales_per_octave=2,
            ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64]),
        bbox_coder=dict(
            type="DeltaXYWHTRBBoxCoder", angle_version="le90", norm_factor=None, edge_swap=True, proj_xy=True,
            target_means=(0, 0, 0, 0, 0), target_stds=(1, 1, 1, 1, 1)),
        loss_cls=dict(type="mmdet.FocalLoss"), loss_bbox=dict(type="mmdet.L1Loss")),
    test_cfg=dict(nms_pre=200, min_bbox_size=0, score_thr=0.0, nms=dict(type="nms_rotated", iou_threshold=0.1),
                  max_per_img=12))
"""
)

SEGMENTER = """
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(128, 96), keep_ratio=True),
    dict(type="ResizeToMultiple", size_divisor=32),
    dict(type="LoadAnnotations", reduce_zero_label=True),
    dict(type="PackSegInputs"),
]
test_dataloader = dict(dataset=dict(type="ADE20KDataset", pipeline=test_pipeline))
default_scope = "mmseg"
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(type="ResNet", depth=18, base_channels=8, stem_channels=8, num_stages=4, out_indices=(0, 1, 2, 3)),
    decode_head=dict(
        type="FCNHead", in_channels=64, in_index=3, channels=16, num_convs=1, concat_input=False, num_classes=3,
        align_corners=False),
    test_cfg=dict(mode="whole"))
"""


@dataclass(frozen=True)
class Files:
    """A model on disk."""

    config: Path
    checkpoint: Path


def _write(folder: Path, text: str) -> Files:
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    files = Files(folder / "config.py", folder / "weights.pth")
    files.config.write_text(text)
    cfg = Config.fromfile(files.config)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = MODELS.build(cfg.model)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.xavier_normal_(module.weight)
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        # Statistics of noise, so that the signal of an image reaches the heads.
        model.train().extract_feat(torch.randn(2, 3, 96, 128))
    meta = {
        "dataset_meta": {"classes": ("ship", "plane", "car"), "palette": [(220, 60, 60), (60, 60, 220), (9, 180, 9)]}
    }
    torch.save({"state_dict": model.state_dict(), "meta": meta}, files.checkpoint)
    return files


@pytest.fixture(scope="session")
def retinanet(tmp_path_factory) -> Files:
    return _write(tmp_path_factory.mktemp("retinanet"), RETINANET)


@pytest.fixture(scope="session")
def faster_rcnn(tmp_path_factory) -> Files:
    return _write(tmp_path_factory.mktemp("faster_rcnn"), FASTER_RCNN)


@pytest.fixture(scope="session")
def rotated_retinanet(tmp_path_factory) -> Files:
    return _write(tmp_path_factory.mktemp("rotated_retinanet"), ROTATED)


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory) -> Files:
    return _write(tmp_path_factory.mktemp("segmenter"), SEGMENTER)


def make_image(seed: int, width: int, height: int) -> np.ndarray:
    """A smooth random picture with a few rectangles, uint8 (height, width, 3)."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (4, 5, 3), np.uint8))
    image = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).copy()
    for _ in range(5):
        left, top = generator.integers(0, width - 8), generator.integers(0, height - 8)
        image[top : top + height // 4, left : left + width // 4] = generator.integers(0, 256, 3)
    return image


SIZES = ((128, 96), (96, 128), (200, 150), (300, 100), (64, 64), (128, 90), (130, 98))


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Twenty-one good images of seven sizes, in two folders."""
    folder = tmp_path_factory.mktemp("photos")
    for index in range(21):
        path = folder / ("day" if index % 3 else "night") / f"{index:03d}.{'png' if index % 5 == 0 else 'jpg'}"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(make_image(index, *SIZES[index % len(SIZES)])).save(path)
    return folder


class HerePool:
    """Instead of worker processes."""

    def __init__(self, workers):
        pass

    def imap(self, function, items, ahead, on_death):
        return ((item, function(item)) for item in items)

    def close(self):
        pass


@pytest.fixture
def here(monkeypatch):
    """Runs of this process read in it."""
    monkeypatch.setattr("perception.inference.loops.WorkerPool", HerePool)
