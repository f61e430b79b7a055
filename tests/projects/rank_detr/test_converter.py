"""Authors' checkpoints to ours and back."""

import pytest
import torch
from mmdet.models import SwinTransformer
from mmdet.registry import MODELS

from perception.engine.config import load_config
from perception.engine.errors import UserError
from projects.rank_detr import converter


def build(config: str, **changes):
    return MODELS.build(load_config(config, {"model.backbone.init_cfg": None, **changes}).model)


def filled(model) -> dict[str, torch.Tensor]:
    """Random values in the shape of every weight of a model."""
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.randn(value.shape, generator=generator).to(value.dtype)
        for key, value in model.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }


SMALL = {
    "model.transformer.embed_dims": 64,
    "model.transformer.feedforward_channels": 128,
    "model.neck.out_channels": 64,
    "model.transformer.num_queries_one2one": 30,
    "model.transformer.num_queries_one2many": 60,
}


@pytest.mark.parametrize("config", ["r50_36e", "swin_t_12e", "r50_h_deformable_detr"])
def test_round_trip_loses_nothing(config):
    model = build(f"configs/rank_detr/{config}.py", **SMALL)
    ours = filled(model)
    authors = converter.to_authors({"state_dict": ours})
    assert authors.unmatched == []
    duplicates = {k for k in authors.checkpoint["model"] if k.startswith("transformer.decoder.") and "_embed." in k}
    assert len(authors.checkpoint["model"]) - len(duplicates) == len(ours)

    back = converter.to_perception(authors.checkpoint)
    assert back.unmatched == []
    state = back.checkpoint["state_dict"]
    assert state.keys() == ours.keys()
    assert all(torch.equal(state[key], ours[key]) for key in ours)


def test_published_names_and_shapes():
    """Every row of the table of published names, at full size."""
    authors = converter.to_authors({"state_dict": filled(build("configs/rank_detr.py"))}).checkpoint["model"]
    beyond_backbone = [key for key in authors if not key.startswith("backbone.")]
    duplicates = [key for key in beyond_backbone if key.startswith("transformer.decoder.") and "_embed." in key]
    assert len(beyond_backbone) == 397
    assert len(duplicates) == 56
    shapes = {key: tuple(value.shape) for key, value in authors.items()}
    for key, shape in {
        "backbone.stem.conv1.weight": (64, 3, 7, 7),
        "backbone.stem.conv1.norm.running_var": (64,),
        "backbone.res2.0.shortcut.norm.bias": (256,),
        "backbone.res5.2.conv3.weight": (2048, 512, 1, 1),
        "neck.convs.2.conv.weight": (256, 2048, 1, 1),
        "neck.convs.0.conv.bias": (256,),
        "neck.extra_convs.0.norm.weight": (256,),
        "query_embedding.weight": (1800, 256),
        "transformer.level_embeds": (4, 256),
        "transformer.encoder.layers.5.attentions.0.sampling_offsets.bias": (256,),
        "transformer.encoder.layers.0.ffns.0.layers.0.0.weight": (2048, 256),
        "transformer.decoder.layers.0.attentions.0.attn.in_proj_weight": (768, 256),
        "transformer.decoder.layers.5.attentions.1.output_proj.weight": (256, 256),
        "transformer.decoder.layers.3.norms.2.bias": (256,),
        "transformer.decoder.rank_aware_content_query.4.weight": (1800, 256),
        "transformer.decoder.pre_racq_trans.0.weight": (256, 256),
        "transformer.decoder.post_racq_trans.4.weight": (256, 512),
        "transformer.enc_output_norm.weight": (256,),
        "transformer.pos_trans.weight": (512, 512),
        "class_embed.6.bias": (80,),
        "bbox_embed.6.layers.2.weight": (4, 256),
        "rank_adaptive_classhead_emb.5.weight": (1800, 80),
        "transformer.decoder.class_embed.6.weight": (80, 256),
    }.items():
        assert shapes[key] == shape, key


def test_swin_patch_merging_is_reordered():
    """The authors stack four neighbours; mmdet interleaves them per channel: both must compute the same."""
    channels = 3
    merge = SwinTransformer(embed_dims=channels, depths=(1, 1), num_heads=(1, 1), out_indices=(0, 1), strides=(4, 2))
    merge = merge.stages[0].downsample.double()
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2 * channels, 4 * channels, generator=generator, dtype=torch.float64)
    norm = {name: torch.randn(4 * channels, generator=generator, dtype=torch.float64) for name in ("weight", "bias")}
    x = torch.randn(1, 4, 4, channels, generator=generator, dtype=torch.float64)

    neighbours = torch.cat([x[:, dy::2, dx::2] for dx in (0, 1) for dy in (0, 1)], -1).view(1, -1, 4 * channels)
    wanted = torch.nn.functional.layer_norm(neighbours, (4 * channels,), norm["weight"], norm["bias"]) @ weight.T

    prefix = "backbone.layers.0.downsample."
    renamed = converter.rename(
        {f"{prefix}reduction.weight": weight, **{f"{prefix}norm.{k}": v for k, v in norm.items()}},
        converter.RULES,
        to="ours",
    ).state
    merge.load_state_dict({key.removeprefix("backbone.stages.0.downsample."): v for key, v in renamed.items()})
    torch.testing.assert_close(merge(x.view(1, 16, channels), (4, 4))[0], wanted)


def test_unmatched_keys_are_reported():
    authors = converter.to_authors({"state_dict": filled(build("configs/rank_detr.py", **SMALL))}).checkpoint
    authors["model"]["criterion.empty_weight"] = torch.zeros(3)
    authors["optimizer"] = {"state": {}}
    assert converter.to_perception(authors).unmatched == ["criterion.empty_weight"]


def test_names_of_classes():
    """Those of COCO for 80 classes, else those that were trained with, else those that are given."""
    options = {**SMALL, "model.bbox_head.num_classes": 3}
    ours = filled(build("configs/rank_detr.py", **options))
    named = {"state_dict": ours, "meta": {"dataset_meta": {"classes": ("a", "b", "c"), "palette": [(1, 2, 3)] * 3}}}
    back = converter.to_perception(converter.to_authors(named).checkpoint)
    assert back.checkpoint["meta"]["dataset_meta"] == named["meta"]["dataset_meta"]
    nameless = converter.to_perception(converter.to_authors({"state_dict": ours}).checkpoint)
    assert not nameless.names_classes
    with pytest.raises(UserError, match="tells 3 classes apart, but 2 names"):
        nameless.name_classes(["x", "y"])
    nameless.name_classes(["x", "y", "z"])
    assert nameless.checkpoint["meta"]["dataset_meta"] == {"classes": ("x", "y", "z")}
    coco = converter.to_authors({"state_dict": filled(build("configs/rank_detr.py", **SMALL))}).checkpoint
    assert converter.to_perception(coco).checkpoint["meta"]["dataset_meta"]["classes"][0] == "person"


def test_other_models_are_refused():
    with pytest.raises(UserError, match=r"does not hold a Rank-DETR model: it has no weight transformer\.level_embed"):
        converter.to_perception({"model": {"fc.weight": torch.zeros(2, 2)}})
    authors = converter.to_authors({"state_dict": filled(build("configs/rank_detr.py", **SMALL))}).checkpoint
    incomplete = {k: v for k, v in authors["model"].items() if not k.startswith("transformer.pos_trans.")}
    with pytest.raises(UserError, match="2 weights are missing"):
        converter.to_perception({"model": incomplete})
    authors["model"]["transformer.enc_output.weight"] = torch.zeros(3, 3)
    with pytest.raises(UserError, match=r"has shape \(3, 3\) instead of \(64, 64\)"):
        converter.to_perception(authors)
