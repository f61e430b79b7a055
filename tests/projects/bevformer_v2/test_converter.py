"""Translation of checkpoints: every published key is consumed, both ways, and foreign files are refused."""

import pytest
import torch
from mmdet.models import FPN, ResNet

from perception.datasets.driving.infos import CLASSES
from perception.engine.convert_shapes import COUNTER
from perception.engine.errors import UserError
from projects.bevformer_v2.converter import to_authors, to_perception
from projects.bevformer_v2.head import BEVFormerHead
from projects.bevformer_v2.perspective.head import NuscenesDD3D
from tests.projects.bevformer_v2.tiny import SIZES


def layers(prefix, shapes):
    """Keys and shapes of linear layers, convolutions and norms: weight and bias."""
    found = {}
    for name, (rows, *rest) in shapes.items():
        found[f"{prefix}{name}.weight"] = (rows, *rest)
        found[f"{prefix}{name}.bias"] = (rows,)
    return found


def norms(prefix, names, channels):
    kinds = ("weight", "bias", "running_mean", "running_var")
    keys = {f"{prefix}{name}.{kind}": (channels,) for name in names for kind in kinds}
    return keys | {f"{prefix}{name}.{COUNTER}": () for name in names}


def published_head(num_queries, frames, inter):
    """The list of the published files, written by hand."""
    head, transformer = "pts_bbox_head.", "pts_bbox_head.transformer."
    keys = {
        f"{head}code_weights": (10,),
        f"{head}positional_encoding.row_embed.weight": (200, 128),
        f"{head}positional_encoding.col_embed.weight": (200, 128),
        f"{head}bev_embedding.weight": (40000, 256),
        f"{head}query_embedding.weight": (num_queries, 512),
        f"{transformer}level_embeds": (4, 256),
        f"{transformer}cams_embeds": (6, 256),
    }
    keys |= layers(transformer, {"reference_points": (3, 256)})
    for i in range(6):
        branch = {0: (256, 256), 1: (256,), 3: (256, 256), 4: (256,), 6: (10, 256)}
        keys |= layers(f"{head}cls_branches.{i}.", branch)
        keys |= layers(f"{head}reg_branches.{i}.", {0: (256, 256), 2: (256, 256), 4: (10, 256)})
        shared = {"ffns.0.layers.0.0": (512, 256), "ffns.0.layers.1": (256, 512)}
        shared |= {f"norms.{n}": (256,) for n in range(3)}
        encoder = {
            "attentions.0.sampling_offsets": (128, 512),
            "attentions.0.attention_weights": (64, 512),
            "attentions.0.value_proj": (256, 256),
            "attentions.0.output_proj": (256, 256),
            "attentions.1.deformable_attention.sampling_offsets": (512, 256),
            "attentions.1.deformable_attention.attention_weights": (256, 256),
            "attentions.1.deformable_attention.value_proj": (256, 256),
            "attentions.1.output_proj": (256, 256),
        }
        decoder = {
            "attentions.0.attn.out_proj": (256, 256),
            "attentions.1.sampling_offsets": (64, 256),
            "attentions.1.attention_weights": (32, 256),
            "attentions.1.value_proj": (256, 256),
            "attentions.1.output_proj": (256, 256),
        }
        keys |= layers(f"{transformer}encoder.layers.{i}.", encoder | shared)
        keys |= layers(f"{transformer}decoder.layers.{i}.", decoder | shared)
        keys[f"{transformer}decoder.layers.{i}.attentions.0.attn.in_proj_weight"] = (768, 256)
        keys[f"{transformer}decoder.layers.{i}.attentions.0.attn.in_proj_bias"] = (768,)
    if frames > 1:
        fusion, wide = f"{transformer}fusion.", frames * 256
        for block in range(3):
            keys[f"{fusion}layers.{block}.conv1.weight"] = (inter, inter if block else wide, 3, 3)
            keys[f"{fusion}layers.{block}.conv2.weight"] = (inter, inter, 3, 3)
            keys |= norms(f"{fusion}layers.{block}.", ("bn1", "bn2"), inter)
        if inter != wide:
            keys[f"{fusion}layers.0.downsample.0.weight"] = (inter, wide, 3, 3)
            keys |= norms(f"{fusion}layers.0.downsample.", ("1",), inter)
        keys |= layers(f"{fusion}layer_norm.", {0: (256, inter), 1: (256,)})
    return keys


def published_perspective_head():
    flat, solid = "fcos3d_bbox_head.fcos2d_head.", "fcos3d_bbox_head.fcos3d_head."
    keys = {f"{solid}{kind}_depth_per_level": (5,) for kind in ("mean", "std")}
    for tower in (f"{flat}cls_tower", f"{flat}box2d_tower", f"{solid}box3d_tower"):
        for i in range(4):
            keys[f"{tower}.{i}.weight"] = (256, 256, 3, 3)
            keys |= norms(f"{tower}.{i}.norm.", range(5), 256)
    keys |= layers(flat, {n: (c, 256, 3, 3) for n, c in dict(cls_logits=10, box2d_reg=4, centerness=1).items()})
    predictors = {f"box3d_{n}.0": (c, 256, 3, 3) for n, c in dict(quat=40, ctr=20, size=30, conf=10).items()}
    keys |= layers(solid, predictors)
    keys[f"{solid}box3d_depth.0.weight"] = (10, 256, 3, 3)
    keys |= layers("fcos3d_bbox_head.", dict(attr_logits=(3, 256, 3, 3), speed=(1, 256, 3, 3)))
    for level in range(5):
        keys[f"{flat}scales_box2d_reg.{level}.scale"] = (1,)
        keys |= {f"{solid}scales_{name}.{level}.scale": (1,) for name in ("proj_ctr", "size", "conf", "depth")}
        keys[f"{solid}offsets_depth.{level}.bias"] = (1,)
    return keys


def published(num_queries=9900, frames=1, inter=512):
    """Keys and tensors without numbers of a whole published file."""
    with torch.device("meta"):
        backbone = ResNet(50, out_indices=(1, 2, 3), style="caffe").state_dict(prefix="img_backbone.")
    neck = {f"lateral_convs.{n}.conv": (256, c, 1, 1) for n, c in enumerate((512, 1024, 2048))}
    neck |= {f"fpn_convs.{n}.conv": (256, 256, 3, 3) for n in range(5)}
    shapes = published_head(num_queries, frames, inter) | published_perspective_head() | layers("img_neck.", neck)
    return {**backbone, **{key: torch.empty(shape, device="meta") for key, shape in shapes.items()}}


@pytest.mark.parametrize(
    ("num_queries", "frames"), [(900, 1), (9900, 1), (9900, 2), (9900, 8)], ids=["t1-base", "t1", "t2", "t8"]
)
def test_every_published_key_is_consumed(num_queries, frames):
    state = published(num_queries, frames)
    converted = to_perception({"state_dict": state})
    assert converted.unmatched == []
    assert converted.num_weights == len(state)
    assert converted.checkpoint["meta"]["dataset_meta"]["classes"] == CLASSES
    assert converted.description.startswith(f"{frames} frame")
    groups = num_queries // 900
    offsets = tuple(range(1 - frames, 1))
    with torch.device("meta"):
        head = BEVFormerHead(num_groups=groups, transformer=dict(frames=offsets))
        parts = {
            "pts_bbox_head": head,
            "fcos3d_bbox_head": NuscenesDD3D(),
            "img_backbone": ResNet(50, out_indices=(1, 2, 3), style="caffe"),
            "img_neck": FPN([512, 1024, 2048], 256, 5, add_extra_convs="on_output", relu_before_extra_convs=True),
        }
    ours = {key: value for name, part in parts.items() for key, value in part.state_dict(prefix=f"{name}.").items()}
    assert converted.checkpoint["state_dict"].keys() == ours.keys()
    back = to_authors(converted.checkpoint)
    assert back.checkpoint["state_dict"].keys() == state.keys()
    assert back.unmatched == []


def tiny_state():
    torch.manual_seed(0)
    parts = {
        "pts_bbox_head": BEVFormerHead(**SIZES),
        "fcos3d_bbox_head": NuscenesDD3D(10, 32),
        "img_backbone": ResNet(18, base_channels=8, stem_channels=8, out_indices=(1, 2, 3), style="caffe"),
        "img_neck": FPN([16, 32, 64], 32, 5, add_extra_convs="on_output", relu_before_extra_convs=True),
    }
    return {key: value for name, part in parts.items() for key, value in part.state_dict(prefix=f"{name}.").items()}


def test_there_and_back():
    ours = tiny_state()
    theirs = to_authors({"state_dict": ours, "meta": {"dataset_meta": {"classes": CLASSES[::-1]}}}).checkpoint
    assert "pts_bbox_head.transformer.encoder.layers.1.attentions.1.output_proj.bias" in theirs["state_dict"]
    assert "pts_bbox_head.transformer.decoder.layers.0.attentions.0.attn.in_proj_weight" in theirs["state_dict"]
    back = to_perception(theirs)
    assert back.checkpoint["meta"]["dataset_meta"]["classes"] == CLASSES[::-1]
    assert back.checkpoint["state_dict"].keys() == ours.keys()
    assert all(value.equal(ours[key]) for key, value in back.checkpoint["state_dict"].items())


def test_any_depths():
    transformer = {**SIZES["transformer"], "frames": (-1, 0), "fusion_channels": None, "num_fusion_blocks": 1}
    parts = {
        "pts_bbox_head": BEVFormerHead(**{**SIZES, "transformer": transformer}, num_branch_layers=3),
        "fcos3d_bbox_head": NuscenesDD3D(10, 32, num_convs=(1, 2, 3)),
    }
    ours = {key: value for name, part in parts.items() for key, value in part.state_dict(prefix=f"{name}.").items()}
    theirs = to_authors(ours)
    assert theirs.unmatched == []
    assert theirs.checkpoint["state_dict"]["pts_bbox_head.cls_branches.0.9.weight"].shape == (10, 32)
    back = to_perception(theirs.checkpoint)
    assert back.unmatched == []
    assert back.num_classes == 10
    assert all(value.equal(ours[key]) for key, value in back.checkpoint["state_dict"].items())
    assert back.checkpoint["state_dict"].keys() == ours.keys()
    lost = "fcos3d_bbox_head.fcos3d_head.box3d_tower.2.weight"
    with pytest.raises(UserError, match="missing"):
        to_perception({key: value for key, value in theirs.checkpoint["state_dict"].items() if key != lost})


def test_files_that_are_refused():
    ours = tiny_state()
    theirs = to_authors(ours).checkpoint["state_dict"]
    with pytest.raises(UserError, match="does not hold a BEVFormer v2 model"):
        to_perception({"backbone.conv1.weight": torch.zeros(8, 3, 7, 7)})
    for lost in (
        "pts_bbox_head.cls_branches.1.6.bias",
        "pts_bbox_head.transformer.encoder.layers.0.attentions.0.value_proj.weight",
        "fcos3d_bbox_head.fcos3d_head.box3d_tower.2.norm.4.running_var",
        "img_neck.fpn_convs.4.conv.bias",
        "img_backbone.layer3.1.bn2.weight",
    ):
        with pytest.raises(UserError, match="missing"):
            to_perception({key: value for key, value in theirs.items() if key != lost})
    lost = "pts_bbox_head.cls_branches.0.6.weight"
    with pytest.raises(UserError, match=f"has no weight {lost}"):
        to_perception({key: value for key, value in theirs.items() if key != lost})
    with pytest.raises(UserError, match="shape"):
        to_perception({**theirs, "img_neck.fpn_convs.0.conv.bias": torch.zeros(7)})
    with pytest.raises(UserError, match="starts from ours"):
        to_perception(ours)


def test_keys_without_a_place_are_listed():
    theirs = to_authors(tiny_state()).checkpoint["state_dict"]
    further = {"pts_bbox_head.transformer.can_bus_mlp.0.weight": torch.zeros(3), "head.bias": torch.zeros(1)}
    assert sorted(to_perception({**theirs, **further}).unmatched) == sorted(further)
    two_stage = BEVFormerHead(**SIZES, num_proposals=4).state_dict(prefix="pts_bbox_head.")
    assert all("proposal_queries" in key for key in to_authors({**tiny_state(), **two_stage}).unmatched)


def test_a_model_without_perspective_head():
    state = {key: value for key, value in tiny_state().items() if not key.startswith("fcos3d_bbox_head.")}
    assert "without perspective head" in to_perception(to_authors(state).checkpoint).description


@pytest.mark.parametrize("part", ["pts_bbox_head.", "fcos3d_bbox_head."])
def test_a_head_alone(part):
    state = {key: value for key, value in tiny_state().items() if key.startswith(part)}
    conversion = to_perception(to_authors(state).checkpoint)
    assert conversion.checkpoint["state_dict"].keys() == state.keys()
    assert "without img_backbone, without img_neck" in conversion.description
    with pytest.raises(UserError, match="missing"):
        to_perception(dict(list(to_authors(state).checkpoint["state_dict"].items())[:-1]))


def test_an_image_encoder_alone_is_refused():
    state = {key: value for key, value in tiny_state().items() if key.startswith("img_")}
    with pytest.raises(UserError, match="does not hold a BEVFormer v2 model"):
        to_perception(state)


def test_tool(tmp_path, run_tool):
    torch.save(to_authors(tiny_state()).checkpoint, tmp_path / "authors.pth")
    there = run_tool("convert_checkpoint", "bevformer_v2", tmp_path / "authors.pth", tmp_path / "ours.pth")
    assert there.code == 0, there.err
    back = run_tool(
        "convert_checkpoint", "bevformer_v2", tmp_path / "ours.pth", tmp_path / "back.pth", "--to", "authors"
    )
    assert back.code == 0, back.err
    first, last = (torch.load(tmp_path / f"{name}.pth", weights_only=True) for name in ("authors", "back"))
    assert all(value.equal(last["state_dict"][key]) for key, value in first["state_dict"].items())
