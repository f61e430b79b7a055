"""Published BEVFormer v2 checkpoints (mmdet3d 0.17 layout) to ours and back.

Ours keep the authors' names but for the parts of transformer layers, which they number and we name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from perception.datasets.driving.infos import CLASSES
from perception.engine.checkpoint import state_dict_of
from perception.engine.convert import (
    Conversion,
    Rename,
    State,
    authors_meta,
    count_numbers,
    rename,
    require_complete,
    require_weight,
    stated_classes,
)
from perception.engine.convert_shapes import COUNTER, Shapes, is_known, resnet_shapes, shapes_of, with_biases
from perception.engine.errors import UserError

from .head import BEVFormerHead
from .perspective.head import NuscenesDD3D

MODEL = "BEVFormer v2"
_LAYER = "pts_bbox_head.transformer.{half}.layers.{{i}}"
_ENCODER, _DECODER = _LAYER.format(half="encoder"), _LAYER.format(half="decoder")
RULES = [
    Rename(f"{_ENCODER}.attentions.0.{{rest}}", f"{_ENCODER}.self_attn.{{rest}}"),
    Rename(f"{_ENCODER}.attentions.1.{{rest}}", f"{_ENCODER}.cross_attn.{{rest}}"),
    Rename(f"{_ENCODER}.ffns.0.{{rest}}", f"{_ENCODER}.ffn.{{rest}}"),
    Rename(f"{_DECODER}.attentions.0.{{rest}}", f"{_DECODER}.self_attn.{{rest}}"),
    Rename(f"{_DECODER}.attentions.1.{{rest}}", f"{_DECODER}.cross_attn.{{rest}}"),
    Rename(f"{_DECODER}.ffns.0.{{rest}}", f"{_DECODER}.ffn.{{rest}}"),
    *(
        Rename(f"{part}.{{rest}}", f"{part}.{{rest}}")
        for part in ("img_backbone", "img_neck", "pts_bbox_head", "fcos3d_bbox_head")
    ),
]


def to_perception(checkpoint: Mapping[str, Any]) -> Conversion:
    """Authors' checkpoint to ours.

    Raises:
        UserError: the file does not hold this model, or not all of it.
    """
    state = state_dict_of(checkpoint)
    if any(key.startswith(f"{_ENCODER.format(i=0)}.self_attn.") for key in state):
        raise UserError(
            f"this file does not hold a {MODEL} model of the authors' layout; --to authors starts from ours"
        )
    renamed = rename(state, RULES, to="ours")
    expected = _expected(renamed.state)
    require_complete(renamed.state, expected, MODEL)
    known = {key: value for key, value in renamed.state.items() if is_known(key, expected)}
    left_out = [key for key in renamed.state if key not in known]
    meta: dict[str, Any] = {"converted_from": "BEVFormer"}
    num_classes = _num_classes(known)
    named = stated_classes(checkpoint.get("meta", {}))
    if not named and num_classes == len(CLASSES):
        named = {"classes": CLASSES}
    if named:
        meta["dataset_meta"] = named
    unmatched = [*renamed.unmatched, *left_out]
    return Conversion({"meta": meta, "state_dict": known}, unmatched, len(known), _describe(known), num_classes)


def to_authors(checkpoint: Mapping[str, Any]) -> Conversion:
    """Our checkpoint to the authors' layout. Weights of the two-stage variant have no place there.

    Raises:
        UserError: the file does not hold this model, or not all of it.
    """
    ours = state_dict_of(checkpoint)
    expected = _expected(ours)
    require_complete(ours, expected, MODEL)
    known = {key: value for key, value in ours.items() if is_known(key, expected)}
    renamed = rename(known, RULES, to="authors")
    result: dict[str, Any] = {"state_dict": renamed.state}
    meta = authors_meta(checkpoint)
    if meta:
        result["meta"] = meta
    unmatched = [key for key in ours if key not in known]
    return Conversion(result, unmatched, len(known), _describe(known), _num_classes(known))


def _expected(state: State) -> Shapes:
    """Shapes of all weights of the parts that are there, of the sizes that the weights themselves show. One head must
    be there."""
    parts = {
        "pts_bbox_head.": _head_shapes,
        "fcos3d_bbox_head.": _perspective_shapes,
        "img_backbone.": lambda weights: resnet_shapes(weights, MODEL, "img_backbone."),
        "img_neck.": _neck_shapes,
    }
    there = _parts(state) or {"pts_bbox_head."}
    if there.isdisjoint({"pts_bbox_head.", "fcos3d_bbox_head."}):
        there.add("pts_bbox_head.")
    return {key: shape for part, shapes in parts.items() if part in there for key, shape in shapes(state).items()}


def _parts(state: State) -> set[str]:
    """Of the model, which the weights belong to."""
    return {f"{key.partition('.')[0]}." for key in state}


def _head_shapes(state: State) -> Shapes:
    prefix = "pts_bbox_head."
    transformer = f"{prefix}transformer"

    def shape(key: str) -> torch.Size:
        return require_weight(state, f"{prefix}{key}", MODEL).shape

    rows, columns = (shape(f"positional_encoding.{axis}_embed.weight")[0] for axis in ("row", "col"))
    num_levels, embed_dims = shape("transformer.level_embeds")
    layers = "transformer.{}.layers.0.{}.weight"
    spatial = shape(layers.format("encoder", "cross_attn.deformable_attention.attention_weights"))[0]
    fusion = state.get(f"{transformer}.fusion.layers.0.conv1.weight")
    num_frames = 1 if fusion is None else fusion.shape[1] // embed_dims
    with torch.device("meta"):
        head = BEVFormerHead(
            num_classes=_num_classes(state),
            embed_dims=embed_dims,
            bev_size=(rows, columns),
            num_queries=shape("query_embedding.weight")[0],
            num_branch_layers=_branch_layers(state),
            transformer=dict(
                num_heads=1,  # numbers of heads do not show in shapes, their products with the points do
                num_cams=shape("transformer.cams_embeds")[0],
                num_levels=num_levels,
                num_temporal_points=shape(layers.format("encoder", "self_attn.attention_weights"))[0] // 2,
                num_spatial_points=spatial // num_levels,
                num_decoder_points=shape(layers.format("decoder", "cross_attn.attention_weights"))[0],
                feedforward_channels=shape(layers.format("encoder", "ffn.layers.0.0"))[0],
                num_encoder_layers=count_numbers(state, rf"{transformer}\.encoder\.layers\.(\d+)\..+"),
                num_decoder_layers=count_numbers(state, rf"{transformer}\.decoder\.layers\.(\d+)\..+"),
                frames=range(1 - num_frames, 1),
                fusion_channels=None if fusion is None else len(fusion),
                num_fusion_blocks=count_numbers(state, rf"{transformer}\.fusion\.layers\.(\d+)\..+"),
            ),
        )
    return shapes_of(head, prefix)


def _perspective_shapes(state: State) -> Shapes:
    """Of the perspective head."""
    prefix = "fcos3d_bbox_head."

    def shape(key: str) -> torch.Size:
        return require_weight(state, f"{prefix}{key}", MODEL).shape

    num_levels = count_numbers(state, rf"{prefix}fcos2d_head\.scales_box2d_reg\.(\d+)\..+")
    with torch.device("meta"):
        head = NuscenesDD3D(
            num_classes=shape("fcos2d_head.cls_logits.weight")[0],
            in_channels=shape("fcos2d_head.cls_logits.weight")[1],
            strides=[8 * 2**level for level in range(num_levels)],
            num_convs=[
                count_numbers(state, rf"{prefix}{tower}\.(\d+)\..+")
                for tower in (r"fcos2d_head\.cls_tower", r"fcos2d_head\.box2d_tower", r"fcos3d_head\.box3d_tower")
            ],
            num_attributes=shape("attr_logits.weight")[0],
            mean_depths=[0.0] * num_levels,
            std_depths=[0.0] * num_levels,
        )
    return shapes_of(head, prefix)


def _neck_shapes(state: State) -> Shapes:
    """Of mmdet's FPN on the last three stages of the backbone, with two more levels of its own."""
    channels = len(require_weight(state, "img_neck.lateral_convs.0.conv.weight", MODEL))
    layers: Shapes = {}
    for level, stage in enumerate((2, 3, 4)):
        lateral = f"img_neck.lateral_convs.{level}.conv"
        if "img_backbone." in _parts(state):
            deep = f"img_backbone.layer{stage}.0.conv"
            last = f"{deep}3.weight" if f"{deep}3.weight" in state else f"{deep}2.weight"
            inputs = len(require_weight(state, last, MODEL))
        else:
            inputs = require_weight(state, f"{lateral}.weight", MODEL).shape[1]
        layers[lateral] = (channels, inputs, 1, 1)
    for level in range(5):
        layers[f"img_neck.fpn_convs.{level}.conv"] = (channels, channels, 3, 3)
    return with_biases(layers)


def _branch_layers(state: State) -> int:
    """Hidden layers of a branch: of three modules each in those of classes, of which the last one follows."""
    return (count_numbers(state, r"pts_bbox_head\.cls_branches\.0\.(\d+)\..+") - 1) // 3


def _num_classes(state: State) -> int:
    if "pts_bbox_head." in _parts(state):
        last = 3 * _branch_layers(state)
        return len(require_weight(state, f"pts_bbox_head.cls_branches.0.{last}.weight", MODEL))
    return len(require_weight(state, "fcos3d_bbox_head.fcos2d_head.cls_logits.weight", MODEL))


def _describe(state: State) -> str:
    weights = sum(value.numel() for key, value in state.items() if not key.endswith(COUNTER))
    parts, words = _parts(state), []
    if "pts_bbox_head." in parts:
        fusion = state.get("pts_bbox_head.transformer.fusion.layers.0.conv1.weight")
        embed_dims = state["pts_bbox_head.transformer.level_embeds"].shape[1]
        frames = 1 if fusion is None else fusion.shape[1] // embed_dims
        queries = len(state["pts_bbox_head.query_embedding.weight"])
        words += [f"{frames} {'frame' if frames == 1 else 'frames'}", f"{queries} queries"]
    words.append(f"{'with' if 'fcos3d_bbox_head.' in parts else 'without'} perspective head")
    words += [f"without {part[:-1]}" for part in ("pts_bbox_head.", "img_backbone.", "img_neck.") if part not in parts]
    return ", ".join([*words, f"{weights / 1e6:.1f} M numbers"])
