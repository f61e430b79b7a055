"""Authors' checkpoints of three layouts to ours and back."""

import pytest
import torch

from perception.engine.errors import UserError
from projects.freqfusion import converter
from projects.freqfusion.fusion import FreqFusion
from projects.freqfusion.head import SEGNEXT
from tests.conftest import REPOSITORY

from .test_recipes import SMALL, build, recipe

SWIN = {
    **{key: value for key, value in SMALL["mask2former_r50_cityscapes"].items() if "backbone" not in key},
    "model__backbone__embed_dims": 8,
    "model__backbone__depths": (1, 1, 1, 1),
    "model__backbone__num_heads": (1, 1, 2, 2),
    "model__backbone__window_size": 4,
}
# Recipe, what shrinks it, where its fusions are, and who published such files.
CASES = {
    "faster_rcnn_r50": (SMALL["faster_rcnn_r50"], "neck.alignment", "Faster R-CNN with 4 fusions"),
    "mask_rcnn_r50": (SMALL["mask_rcnn_r50"], "neck.alignment", "Mask R-CNN with 4 fusions"),
    "panoptic_fpn_r50": (SMALL["panoptic_fpn_r50"], "neck.alignment", "Panoptic FPN with 4 fusions"),
    "../freqfusion": ({}, "decode_head.freqfusions", "SegNeXt with 2 fusions"),
    "mask2former_r50_cityscapes": (SMALL["mask2former_r50_cityscapes"], "decode_head.pixel_decoder", "Mask2Former"),
    "mask2former_swin_b_cityscapes": (SWIN, "decode_head.pixel_decoder", "Mask2Former with 3 fusions"),
    "mask2former_r50_coco_panoptic": (
        SMALL["mask2former_r50_coco_panoptic"],
        "panoptic_head.pixel_decoder",
        "Mask2Former",
    ),
}


def model(name):
    options, _, _ = CASES[name]
    if "cityscapes" in name:
        options = {**options, "model__backbone__init_cfg": None}
    return build(recipe(name, **options))


def filled(module):
    """Random values in the shape of every weight of a model."""
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.randn(value.shape, generator=generator).to(value.dtype)
        for key, value in module.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


@pytest.mark.parametrize("name", CASES)
def test_round_trip_loses_nothing(name):
    module = model(name)
    ours = filled(module)
    authors = converter.to_authors({"state_dict": ours})
    assert authors.unmatched == []
    assert authors.description.startswith(CASES[name][2])
    state = authors.checkpoint.get("model", authors.checkpoint.get("state_dict"))
    assert len(state) == len(ours)

    back = converter.to_perception(authors.checkpoint)
    assert back.unmatched == []
    converted = back.checkpoint["state_dict"]
    assert converted.keys() == ours.keys()
    assert all(torch.equal(converted[key], ours[key]) for key in ours)
    missing, unexpected = module.load_state_dict(converted, strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    assert any(key.startswith(CASES[name][1]) for key in converted)


def test_names_of_detectron2():
    """Names that FreqFusion and Mask2Former were published under."""
    module = model("mask2former_r50_cityscapes")
    ours = filled(module)
    state = converter.to_authors({"state_dict": ours}).checkpoint["model"]
    pairs = {
        "backbone.stem.conv1.norm.running_mean": "backbone.bn1.running_mean",
        "backbone.res3.0.shortcut.weight": "backbone.layer2.0.downsample.0.weight",
        "sem_seg_head.pixel_decoder.input_proj.2.0.weight": "decode_head.pixel_decoder.input_convs.2.conv.weight",
        "sem_seg_head.pixel_decoder.input_proj.2.1.bias": "decode_head.pixel_decoder.input_convs.2.gn.bias",
        "sem_seg_head.pixel_decoder.adapter_1.norm.weight": "decode_head.pixel_decoder.lateral_convs.0.gn.weight",
        "sem_seg_head.pixel_decoder.layer_1.weight": "decode_head.pixel_decoder.output_convs.0.conv.weight",
        "sem_seg_head.pixel_decoder.mask_features.bias": "decode_head.pixel_decoder.mask_feature.bias",
        "sem_seg_head.pixel_decoder.transformer.level_embed": "decode_head.pixel_decoder.level_encoding.weight",
        "sem_seg_head.pixel_decoder.transformer.encoder.layers.0.linear2.weight": (
            "decode_head.pixel_decoder.encoder.layers.0.ffn.layers.1.weight"
        ),
        "sem_seg_head.pixel_decoder.freqfusions.1.dysampler.hr_offset.bias": (
            "decode_head.pixel_decoder.freqfusions.1.dysampler.hr_offset.bias"
        ),
        "sem_seg_head.predictor.transformer_cross_attention_layers.1.multihead_attn.in_proj_weight": (
            "decode_head.transformer_decoder.layers.1.cross_attn.attn.in_proj_weight"
        ),
        "sem_seg_head.predictor.transformer_cross_attention_layers.1.norm.weight": (
            "decode_head.transformer_decoder.layers.1.norms.0.weight"
        ),
        "sem_seg_head.predictor.transformer_self_attention_layers.0.self_attn.out_proj.bias": (
            "decode_head.transformer_decoder.layers.0.self_attn.attn.out_proj.bias"
        ),
        "sem_seg_head.predictor.transformer_self_attention_layers.0.norm.bias": (
            "decode_head.transformer_decoder.layers.0.norms.1.bias"
        ),
        "sem_seg_head.predictor.transformer_ffn_layers.0.norm.bias": (
            "decode_head.transformer_decoder.layers.0.norms.2.bias"
        ),
        "sem_seg_head.predictor.decoder_norm.weight": "decode_head.transformer_decoder.post_norm.weight",
        "sem_seg_head.predictor.mask_embed.layers.1.weight": "decode_head.mask_embed.2.weight",
        "sem_seg_head.predictor.class_embed.bias": "decode_head.cls_embed.bias",
        "sem_seg_head.predictor.query_feat.weight": "decode_head.query_feat.weight",
        "sem_seg_head.predictor.level_embed.weight": "decode_head.level_embed.weight",
    }
    for authors, own in pairs.items():
        assert torch.equal(state[authors], ours[own]), authors
    assert not any(key.startswith(("decode_head.", "backbone.layer")) for key in state)


def test_names_of_segnext():
    ours = filled(model("../freqfusion"))
    residual = "decode_head.low2high_convs.0.weight"
    ours[residual] = torch.randn(160, 256, 1, 1)
    conversion = converter.to_authors({"state_dict": ours, "meta": {"dataset_meta": {"classes": ("a",)}}})
    assert not conversion.unmatched
    state = conversion.checkpoint
    assert torch.equal(state["state_dict"][residual], ours[residual])
    assert state["meta"] == {"CLASSES": ("a",)}
    key = "backbone.block2.1.mlp.dwconv.dwconv.weight"
    assert torch.equal(state["state_dict"][key], ours["backbone.block2.1.mlp.dwconv.weight"])
    assert not any(other.endswith("mlp.dwconv.weight") for other in state["state_dict"])
    kept = "decode_head.freqfusions.0.dysampler.direct_scale.weight"
    assert tuple(state["state_dict"][kept].shape) == (32, 104, 3, 3)
    assert tuple(state["state_dict"]["decode_head.freqfusions.1.hamming_lowpass"].shape) == (1,)


def test_what_comes_along():
    """NumPy arrays of detectron2, keys that have no place, and classes by the number of logits."""
    ours = filled(model("mask2former_r50_coco_panoptic"))
    authors = converter.to_authors({"state_dict": ours}).checkpoint
    arrays = {key: value.numpy() for key, value in authors["model"].items()}
    arrays["criterion.empty_weight"] = torch.ones(134).numpy()
    done = converter.to_perception({"model": arrays, "trainer": {"iteration": 1}})
    assert done.unmatched == ["criterion.empty_weight"]
    assert len(done.checkpoint["meta"]["dataset_meta"]["classes"]) == 133
    assert done.checkpoint["meta"]["converted_from"] == "detectron2"

    ours = filled(model("../freqfusion"))
    named = {"state_dict": ours, "meta": {"CLASSES": ("wall", "sky"), "PALETTE": [[1, 2, 3], [4, 5, 6]]}}
    meta = converter.to_perception(named).checkpoint["meta"]
    assert meta["dataset_meta"] == {"classes": ("wall", "sky"), "palette": [[1, 2, 3], [4, 5, 6]]}
    assert len(converter.to_perception({"state_dict": ours}).checkpoint["meta"]["dataset_meta"]["classes"]) == 150


@pytest.mark.parametrize(
    "settings",
    [
        dict(lowpass_kernel=3, highpass_kernel=5, up_group=2),
        dict(encoder_kernel=1, feature_resample_group=2),
        dict(use_high_pass=False, comp_feat_upsample=False),
        dict(hamming_window=True, lowpass_kernel=7, up_group=4),
    ],
)
def test_all_settings_of_a_fusion_are_understood(settings):
    ours = {key: value for key, value in filled(model("../freqfusion")).items() if "freqfusions" not in key}
    options = {**SEGNEXT, **settings}
    for index, (hr, lr) in enumerate(((160, 256), (64, 416))):
        fusion = FreqFusion(hr, lr, 16, **options)
        ours |= {f"decode_head.freqfusions.{index}.{key}": value for key, value in fusion.state_dict().items()}
    back = converter.to_perception(converter.to_authors({"state_dict": ours}).checkpoint)
    assert back.checkpoint["state_dict"].keys() == ours.keys()
    broken = {**ours, "decode_head.freqfusions.0.content_encoder.bias": torch.zeros(7)}
    with pytest.raises(UserError, match=r"content_encoder\.\w+ has shape"):
        converter.to_perception({"state_dict": broken})


def test_settings_that_exclude_each_other_are_refused():
    ours = filled(model("../freqfusion"))
    for key in [key for key in ours if ".freqfusions.0." in key]:
        del ours[key]
    fusion = FreqFusion(160, 256, 20, **{**SEGNEXT, "feature_resample_norm": False}).state_dict()
    norms = {
        f"dysampler.{name}.{kind}": torch.ones(20) for name in ("norm_hr", "norm_lr") for kind in ("weight", "bias")
    }
    ours |= {f"decode_head.freqfusions.0.{key}": value for key, value in {**fusion, **norms}.items()}
    assert converter.to_perception({"state_dict": ours}).num_classes == 150
    ours["decode_head.freqfusions.0.hr_channel_compressor.weight"] = torch.zeros(52, 160, 1, 1)
    with pytest.raises(UserError, match="52 channels cannot be normalised"):
        converter.to_perception({"state_dict": ours})


@pytest.mark.parametrize("name", ["panoptic_fpn_r50", "../freqfusion", "mask2former_r50_cityscapes"])
def test_names_of_classes_survive_the_way_there_and_back(name):
    ours = filled(model(name))
    named = {"state_dict": ours, "meta": {"dataset_meta": {"classes": ("a", "b"), "palette": [[1, 2, 3], [4, 5, 6]]}}}
    back = converter.to_perception(converter.to_authors(named).checkpoint)
    assert back.checkpoint["meta"]["dataset_meta"] == named["meta"]["dataset_meta"]
    assert back.num_classes == {"panoptic_fpn_r50": 133, "../freqfusion": 150}.get(name, 19)
    nameless = converter.to_perception(converter.to_authors({"state_dict": ours}).checkpoint).checkpoint
    assert len(nameless["meta"]["dataset_meta"]["classes"]) == back.num_classes


def test_tool(run_tool, tmp_path):
    ours, authors, back = (tmp_path / f"{name}.pth" for name in ("ours", "authors", "back"))
    torch.save({"state_dict": filled(model("../freqfusion")), "meta": {}}, ours)
    done = run_tool("convert_checkpoint", "freqfusion", ours, authors, "--to", "authors")
    assert done.code == 0, done.err
    assert "SegNeXt with 2 fusions" in done.out
    assert run_tool("convert_checkpoint", "freqfusion", authors, back).code == 0
    before, after = (torch.load(path, weights_only=True)["state_dict"] for path in (ours, back))
    assert before.keys() == after.keys()
    torch.save({"state_dict": {"fc.weight": torch.zeros(1)}}, authors)
    done = run_tool("convert_checkpoint", "freqfusion", authors, tmp_path / "no.pth")
    assert done.code == 1
    assert "does not hold a FreqFusion model" in done.err


def test_what_is_no_such_model_says_so():
    ours = filled(model("../freqfusion"))
    plain = {key: value for key, value in ours.items() if "freqfusions" not in key}
    with pytest.raises(UserError, match="no weight of it is part of a fusion"):
        converter.to_perception({"state_dict": plain})
    gone = "decode_head.freqfusions.1.dysampler.hr_offset.weight"
    with pytest.raises(UserError, match=f"1 weights are missing, such as {gone}"):
        converter.to_perception({"state_dict": {key: value for key, value in ours.items() if key != gone}})
    half = {key: value for key, value in ours.items() if "freqfusions.1" not in key}
    with pytest.raises(UserError, match=r"it has no weight decode_head\.freqfusions\.1\."):
        converter.to_authors({"state_dict": half})
    turned = {**ours, "decode_head.freqfusions.0.content_encoder.weight": torch.zeros(9, 104, 3, 3)}
    with pytest.raises(UserError, match=r"has shape \(9, 104, 3, 3\) instead of \(25, 104, 3, 3\)"):
        converter.to_perception({"state_dict": turned})

    ours = filled(model("mask2former_r50_cityscapes"))
    with pytest.raises(UserError, match="already has our names"):
        converter.to_perception({"state_dict": ours})
    with pytest.raises(UserError, match="already has the authors' names"):
        converter.to_authors(converter.to_authors({"state_dict": ours}).checkpoint["model"])
