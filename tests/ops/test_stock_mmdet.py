"""mmdet's own detector configs, made small, build, train one step and predict on an mmcv without compiled operators."""

from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.structures import InstanceData

from tests.ops.stock import predict, train_a_step

CONFIGS = Path(mmdet.__file__).parent / ".mim" / "configs"
SIZE = 128
RESNET18 = {
    "backbone.depth": 18,
    "backbone.init_cfg": None,
    "backbone.frozen_stages": -1,
    "backbone.norm_cfg.requires_grad": True,
    "neck.out_channels": 64,
}
PYRAMID = [64, 128, 256, 512]
RPN_HEAD = {"in_channels": 64, "feat_channels": 64}


def faster_rcnn(path="faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"):
    config = small(path, {**RESNET18, "neck.in_channels": PYRAMID})
    config.rpn_head.update(RPN_HEAD)
    config.roi_head.bbox_roi_extractor.out_channels = 64
    config.roi_head.bbox_head.update(in_channels=64, fc_out_channels=64)
    config.test_cfg.rcnn.score_thr = 0.0
    return config


def mask_rcnn_with_dcn():
    config = faster_rcnn("dcn/mask-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py")
    config.backbone.depth = 50  # the deformable convolution is part of the bottleneck block only
    config.backbone.base_channels = 16
    config.backbone.zero_init_residual = False  # would leave the inside of every block without a gradient
    config.neck.in_channels = PYRAMID
    config.roi_head.mask_roi_extractor.out_channels = 64
    config.roi_head.mask_head.update(in_channels=64, conv_out_channels=32)
    return config


def mask_rcnn_with_modulated_dcn():
    config = mask_rcnn_with_dcn()
    config.backbone.dcn.type = "DCNv2"
    return config


def retinanet():
    config = small("retinanet/retinanet_r50_fpn_1x_coco.py", {**RESNET18, "neck.in_channels": PYRAMID})
    config.bbox_head.update(in_channels=64, feat_channels=64, stacked_convs=1)
    config.test_cfg.score_thr = 0.0
    return config


def deformable_detr():
    config = small("deformable_detr/deformable-detr_r50_16xb2-50e_coco.py", {**RESNET18, "num_queries": 20})
    config.neck.update(in_channels=[128, 256, 512], norm_cfg={"type": "GN", "num_groups": 8})
    for part in (config.encoder, config.decoder):
        part.num_layers = 2
        part.layer_cfg.ffn_cfg.update(embed_dims=64, feedforward_channels=128)
        part.layer_cfg.self_attn_cfg.embed_dims = 64
    config.decoder.layer_cfg.cross_attn_cfg.embed_dims = 64
    config.positional_encoding.num_feats = 32
    config.bbox_head.embed_dims = 64
    return config


def mask_rcnn():
    config = faster_rcnn("mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py")
    config.neck.in_channels = PYRAMID
    config.roi_head.mask_roi_extractor.out_channels = 64
    config.roi_head.mask_head.update(in_channels=64, conv_out_channels=32)
    return config


def faster_rcnn_with_deformable_pooling():
    config = faster_rcnn("dcn/faster-rcnn_r50_fpn_dpool_1x_coco.py")
    config.roi_head.bbox_roi_extractor.roi_layer.update(output_channels=64, deform_fc_channels=64)
    return config


def reppoints():
    config = small("reppoints/reppoints-moment_r50_fpn_1x_coco.py", {**RESNET18, "neck.in_channels": PYRAMID})
    config.bbox_head.update(in_channels=64, feat_channels=64, point_feat_channels=64, stacked_convs=1)
    config.test_cfg.score_thr = 0.0
    return config


def mask2former():
    config = small("mask2former/mask2former_r50_8xb2-lsj-50e_coco.py", {})
    config.backbone.update(depth=18, init_cfg=None, frozen_stages=-1, norm_cfg=dict(type="BN", requires_grad=True))
    config.data_preprocessor.batch_augments[0].size = (SIZE, SIZE)
    head = config.panoptic_head
    head.update(in_channels=PYRAMID, num_queries=20)
    head.pixel_decoder.encoder.num_layers = 1
    head.transformer_decoder.num_layers = 2
    config.train_cfg.num_points = 256
    return config


def small(path, changes):
    config = Config.fromfile(CONFIGS / path)
    config.merge_from_dict({f"model.{key}": value for key, value in changes.items()})
    return config.model


@pytest.fixture(scope="module", autouse=True)
def _registered():
    register_all_modules(init_default_scope=True)


@pytest.mark.parametrize(
    "build",
    [
        faster_rcnn,
        faster_rcnn_with_deformable_pooling,
        mask_rcnn,
        mask_rcnn_with_dcn,
        mask_rcnn_with_modulated_dcn,
        retinanet,
        reppoints,
        deformable_detr,
        mask2former,
    ],
)
def test_builds_trains_a_step_and_predicts(build):
    model = MODELS.build(build())
    batch = train_a_step(model, two_images())
    for name, parameter in model.named_parameters():
        if "conv_offset" in name or "sampling_offsets" in name:
            assert parameter.grad.abs().sum() > 0, name

    for result in predict(model, batch):
        predicted = result.pred_instances
        assert len(predicted) > 0
        assert torch.isfinite(predicted.bboxes).all()
        assert ((predicted.scores >= 0) & (predicted.scores <= 1)).all()
        assert predicted.bboxes.min() >= 0
        assert predicted.bboxes.max() <= SIZE


def two_images():
    generator = torch.Generator().manual_seed(0)
    images, samples = [], []
    for boxes in ([[10, 10, 60, 70], [50, 40, 120, 110]], [[30, 20, 90, 100]]):
        image = torch.randint(0, 256, (3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
        bitmap = torch.zeros(len(boxes), SIZE, SIZE, dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(bitmap, boxes):
            image[:, y1:y2, x1:x2] //= 3
            mask[y1:y2, x1:x2] = True
        sample = DetDataSample(
            metainfo={
                "img_shape": (SIZE, SIZE),
                "ori_shape": (SIZE, SIZE),
                "pad_shape": (SIZE, SIZE),
                "batch_input_shape": (SIZE, SIZE),
                "scale_factor": (1.0, 1.0),
            }
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32),
            labels=torch.arange(len(boxes)),
            masks=BitmapMasks(bitmap.numpy().astype("uint8"), SIZE, SIZE),
        )
        images.append(image)
        samples.append(sample)
    return {"inputs": images, "data_samples": samples}
