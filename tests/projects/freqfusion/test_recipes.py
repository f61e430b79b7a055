"""Every recipe: that it loads, what it builds at full size, and that a shrunk model of each family trains."""

import functools

import mmdet.registry
import mmseg.registry
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from perception.engine.config import drop_initial_weights, load_config
from tests.conftest import REPOSITORY

FAMILY = REPOSITORY / "configs" / "freqfusion"
RECIPES = sorted(path.stem for path in FAMILY.glob("*.py"))
REGISTRIES = {"mmdet": mmdet.registry.MODELS, "mmseg": mmseg.registry.MODELS}
# Parameters: of the fusions (spec figures), and of the whole model.
SIZES = {
    "faster_rcnn_r50_plain": (0, 41_753_056),
    "faster_rcnn_r50": (418_760, 47_480_744),
    "faster_rcnn_r101": (626_440, 66_680_552),
    "mask_rcnn_r50_plain": (0, 44_396_336),
    "mask_rcnn_r50": (418_760, 50_124_024),
    "mask_rcnn_r101": (418_760, 69_116_152),
    "panoptic_fpn_r50_plain": (0, 46_027_110),
    "panoptic_fpn_r50": (417_736, 51_753_774),
    "panoptic_fpn_r101": (418_760, 70_746_926),
    "mask2former_r50_cityscapes_plain": (0, 44_007_700),
    "mask2former_r50_cityscapes": (313_302, 44_321_002),
    "mask2former_r101_cityscapes": (313_302, 63_313_130),
    "mask2former_swin_b_cityscapes": (313_302, 107_201_826),
    "mask2former_swin_b_ade20k_plain": (0, 106_922_191),
    "mask2former_swin_b_ade20k": (313_302, 107_235_493),
    "mask2former_swin_l_ade20k": (313_302, 215_802_081),
    "mask2former_r50_coco_panoptic_plain": (0, 44_036_998),
    "mask2former_r50_coco_panoptic": (313_302, 44_350_300),
    "mask2former_r101_coco_panoptic": (313_302, 63_342_428),
    "mask2former_swin_l_coco_panoptic": (313_302, 215_848_912),
    "segformer_mit_b0_plain": (0, 3_753_718),
    "segformer_mit_b0": (440_086, 4_193_804),
    "segnext_mscan_t_plain": (0, 4_263_414),
    "segnext_mscan_t_cityscapes": (257_380, 4_487_127),
    "segnext_mscan_t_coco_stuff164k": (257_380, 4_526_191),
    "upernet_r50_plain": (0, 66_516_108),
    "upernet_r50": (2_369_452, 68_885_560),
    "../freqfusion": (257_380, 4_520_794),
}


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


def recipe(name, **options):
    dotted = {key.replace("__", "."): value for key, value in options.items()}
    cfg = load_config(f"configs/freqfusion/{name}.py", dotted)
    drop_initial_weights(cfg)
    return cfg


def build(cfg):
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return REGISTRIES[cfg.default_scope].build(cfg.model)


def test_every_recipe_is_listed():
    assert {*RECIPES, "../freqfusion"} == set(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_full_size(name, monkeypatch):
    # Backbones read their depths' drop rates from a tensor, which must be a real one.
    monkeypatch.setattr(torch, "linspace", functools.partial(torch.linspace, device="cpu"))
    cfg = recipe(name)
    with torch.device("meta"):
        model = build(cfg)
    fusions = sum(p.numel() for n, p in model.named_parameters() if "freqfusions" in n or "alignment" in n)
    assert (fusions, sum(p.numel() for p in model.parameters())) == SIZES[name]


@pytest.mark.parametrize("name", [name for name in SIZES if f"{name}_plain" in SIZES])
def test_twins_differ_by_fusion_alone(name):
    ours, plain = recipe(name), recipe(f"{name}_plain")
    for key in ("optim_wrapper", "param_scheduler", "train_cfg", "train_pipeline", "test_pipeline", "val_evaluator"):
        assert str(ours[key]) == str(plain[key]), key
    assert str(ours.model.backbone) == str(plain.model.backbone)


def test_settings_that_the_authors_chose():
    cfg = recipe("../freqfusion")
    assert [step["type"].__name__ for step in cfg.test_pipeline][1:3] == ["Resize", "ResizeToMultiple"]
    assert cfg.test_dataloader.dataset.pipeline[2]["size_divisor"] == 32
    assert cfg.optim_wrapper.optimizer.lr == 6e-5
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys["head"].lr_mult == 10
    assert (cfg.train_cfg.max_iters, cfg.param_scheduler[1].end) == (160_000, 160_000)
    assert cfg.train_dataloader.batch_size == 16
    for name in ("faster_rcnn_r50", "faster_rcnn_r101", "mask_rcnn_r101", "panoptic_fpn_r50", "panoptic_fpn_r101"):
        assert recipe(name).model.data_preprocessor.pad_size_divisor == 64
    assert recipe("faster_rcnn_r50_plain").model.data_preprocessor.pad_size_divisor == 32
    groups = {name: recipe(name).model.neck.feature_resample_group for name in ("faster_rcnn_r50", "faster_rcnn_r101")}
    assert groups == {"faster_rcnn_r50": 4, "faster_rcnn_r101": 8}
    large = recipe("mask2former_swin_l_coco_panoptic")
    assert large.model.panoptic_head.num_queries == 200
    assert large.param_scheduler[0].milestones == [874_075, 946_912]
    assert large.optim_wrapper.paramwise_cfg.custom_keys["backbone.stages.2.blocks.17.norm"].decay_mult == 0
    stuff = recipe("segnext_mscan_t_coco_stuff164k")
    assert stuff.train_dataloader.dataset.data_prefix.img_path == "images/train2017"
    # In its files 0 is a class; the data set's default says so.
    assert stuff.train_dataloader.dataset.type.__name__ == "COCOStuff164k"
    assert "reduce_zero_label" not in stuff.train_dataloader.dataset


SMALL_RESNET = dict(
    model__backbone__depth=18,
    model__backbone__base_channels=8,
    model__backbone__stem_channels=8,
    model__backbone__frozen_stages=-1,
)
SMALL_DETECTOR = dict(
    SMALL_RESNET,
    model__neck__in_channels=[8, 16, 32, 64],
    model__neck__out_channels=32,
    model__rpn_head__in_channels=32,
    model__rpn_head__feat_channels=32,
    model__roi_head__bbox_roi_extractor__out_channels=32,
    model__roi_head__bbox_head__in_channels=32,
    model__roi_head__bbox_head__fc_out_channels=32,
    model__neck__compress_ratio=4,
)
SMALL_MASKS = dict(
    SMALL_DETECTOR,
    model__roi_head__mask_roi_extractor__out_channels=32,
    model__roi_head__mask_head__in_channels=32,
    model__roi_head__mask_head__conv_out_channels=32,
)


def small_mask2former(head):
    layers = [f"transformer_decoder__layer_cfg__{part}" for part in ("self_attn_cfg", "cross_attn_cfg", "ffn_cfg")]
    layers += [f"pixel_decoder__encoder__layer_cfg__{part}" for part in ("self_attn_cfg", "ffn_cfg")]
    return {
        **SMALL_RESNET,
        **{f"model__{head}__{layer}__embed_dims": 32 for layer in layers},
        f"model__{head}__pixel_decoder__encoder__num_layers": 1,
        f"model__{head}__pixel_decoder__positional_encoding__num_feats": 16,
        f"model__{head}__pixel_decoder__compress_ratio": 4,
        f"model__{head}__positional_encoding__num_feats": 16,
        f"model__{head}__transformer_decoder__num_layers": 2,
        f"model__{head}__in_channels": [8, 16, 32, 64],
        f"model__{head}__feat_channels": 32,
        f"model__{head}__out_channels": 32,
        f"model__{head}__num_queries": 10,
    }


SMALL = {
    "faster_rcnn_r50": SMALL_DETECTOR,
    "mask_rcnn_r50": SMALL_MASKS,
    "panoptic_fpn_r50": dict(
        SMALL_MASKS, model__semantic_head__in_channels=32, model__semantic_head__inner_channels=32
    ),
    "mask2former_r50_coco_panoptic": {
        **small_mask2former("panoptic_head"),
        "model__data_preprocessor__batch_augments": None,
        "model__train_cfg__num_points": 64,
    },
    "mask2former_r50_cityscapes": {
        **small_mask2former("decode_head"),
        "model__data_preprocessor__size": (64, 64),
        "model__decode_head__train_cfg__num_points": 64,
        "model__backbone__norm_cfg__type": "BN",
    },
    "segformer_mit_b0": dict(
        model__data_preprocessor__size=(64, 64),
        model__decode_head__channels=64,
        model__decode_head__norm_cfg__type="BN",
    ),
    "upernet_r50": dict(
        SMALL_RESNET,
        model__data_preprocessor__size=(64, 64),
        model__backbone__norm_cfg__type="BN",
        model__decode_head__in_channels=[8, 16, 32, 64],
        model__decode_head__channels=64,
        model__decode_head__norm_cfg__type="BN",
        model__auxiliary_head__in_channels=32,
        model__auxiliary_head__channels=16,
        model__auxiliary_head__norm_cfg__type="BN",
    ),
    "../freqfusion": dict(model__data_preprocessor__size=(64, 64)),
}


def detection_batch():
    """Two pictures of different sizes, neither a multiple of 64, with two things and a ground of stuff."""
    inputs, samples = [], []
    for height, width in ((70, 100), (64, 90)):
        inputs.append(torch.randint(0, 256, (3, height, width), dtype=torch.uint8))
        masks = torch.zeros(2, height, width, dtype=torch.bool)
        masks[0, 5:40, 10:60], masks[1, 30:60, 50:80] = True, True
        sample = DetDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width), scale_factor=(1, 1)))
        boxes = torch.tensor([[10.0, 5, 60, 40], [50, 30, 80, 60]])
        sample.gt_instances = InstanceData(
            bboxes=boxes, labels=torch.tensor([3, 17]), masks=BitmapMasks(masks.numpy().astype("uint8"), height, width)
        )
        ground = torch.where(masks.any(0), 3, 100)
        sample.gt_sem_seg = PixelData(sem_seg=ground[None])
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def segmentation_batch():
    inputs, samples = [], []
    for _ in range(2):
        inputs.append(torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8))
        sample = SegDataSample(metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64)))
        labels = torch.zeros(1, 64, 64, dtype=torch.long)
        labels[:, 20:, 30:], labels[:, :4] = 7, 255
        sample.gt_sem_seg = PixelData(data=labels)
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


@pytest.mark.parametrize("name", SMALL)
def test_a_step_of_every_family(name):
    cfg = recipe(name, **SMALL[name])
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = build(cfg)
        model.init_weights()
        model.train()
        batch = (detection_batch if cfg.default_scope == "mmdet" else segmentation_batch)()
        losses = model(**model.data_preprocessor(batch, True), mode="loss")
        total, _ = model.parse_losses(losses)
    assert total.isfinite()
    total.backward()
    fusions = {n: p for n, p in model.named_parameters() if "freqfusions" in n or "alignment" in n}
    assert fusions
    # Compressors, encoders and samplers of every fusion learn.
    assert all(p.grad is not None and p.grad.isfinite().all() for p in fusions.values())
    assert sum(p.grad.abs().sum() > 0 for n, p in fusions.items() if n.endswith("weight")) > 0.8 * len(fusions) / 2
