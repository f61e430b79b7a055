"""Published Rank-DETR checkpoints (detrex / detectron2 layout) to ours and back.

Also reads H-Deformable-DETR files of the same layout, which lack the rank tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmdet.datasets import CocoDataset
from torch import Tensor

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
from perception.engine.convert_backbones import resnet_rules, swin_rules
from perception.engine.errors import UserError

from .head import RankDetrHead
from .transformer import RankDetrTransformer

MODEL = "Rank-DETR"


def _transformer_rules() -> list[Rename]:
    rules = []
    for half in ("encoder", "decoder"):
        layer = f"transformer.{half}.layers.{{i}}"
        rules += [
            Rename(f"{layer}.ffns.0.{{rest}}", f"{layer}.ffn.{{rest}}"),
            Rename(f"{layer}.norms.{{rest}}", f"{layer}.norms.{{rest}}"),
        ]
    encoder, decoder = "transformer.encoder.layers.{i}", "transformer.decoder.layers.{i}"
    rules += [
        Rename(f"{encoder}.attentions.0.{{rest}}", f"{encoder}.self_attn.{{rest}}"),
        Rename(f"{decoder}.attentions.0.attn.{{rest}}", f"{decoder}.self_attn.attn.{{rest}}"),
        Rename(f"{decoder}.attentions.1.{{rest}}", f"{decoder}.cross_attn.{{rest}}"),
    ]
    for table in ("rank_aware_content_query", "pre_racq_trans", "post_racq_trans"):
        rules.append(Rename(f"transformer.decoder.{table}.{{rest}}", f"transformer.decoder.{table}.{{rest}}"))
    for theirs, ours in (
        ("level_embeds", "level_embed"),
        ("enc_output.{rest}", "memory_trans_fc.{rest}"),
        ("enc_output_norm.{rest}", "memory_trans_norm.{rest}"),
        ("pos_trans.{rest}", "pos_trans_fc.{rest}"),
        ("pos_trans_norm.{rest}", "pos_trans_norm.{rest}"),
    ):
        rules.append(Rename(f"transformer.{theirs}", f"transformer.{ours}"))
    rules.append(Rename("query_embedding.{rest}", "transformer.query_embedding.{rest}"))
    return rules


def _neck_and_head_rules() -> list[Rename]:
    rules = []
    for convs in ("convs", "extra_convs"):
        rules.append(Rename(f"neck.{convs}.{{i}}.conv.{{rest}}", f"neck.{convs}.{{i}}.conv.{{rest}}"))
        rules.append(Rename(f"neck.{convs}.{{i}}.norm.{{rest}}", f"neck.{convs}.{{i}}.gn.{{rest}}"))
    rules.append(Rename("class_embed.{rest}", "bbox_head.cls_branches.{rest}"))
    for theirs, ours in ((0, 0), (1, 2), (2, 4)):  # ours counts the activations in between
        rules.append(
            Rename(f"bbox_embed.{{i}}.layers.{theirs}.{{rest}}", f"bbox_head.reg_branches.{{i}}.{ours}.{{rest}}")
        )
    name = "rank_adaptive_classhead_emb.{rest}"
    rules.append(Rename(name, f"bbox_head.{name}"))
    return rules


RULES = [*resnet_rules(), *swin_rules(), *_transformer_rules(), *_neck_and_head_rules()]

# The authors' decoder registers the prediction heads a second time.
_DUPLICATE = re.compile(r"transformer\.decoder\.((class|bbox)_embed\..+)")


def to_perception(checkpoint: Mapping[str, Any]) -> Conversion:
    """Authors' checkpoint to ours.

    Raises:
        UserError: the file does not hold this model.
    """
    if "state_dict" in checkpoint:
        raise UserError(
            f"this file does not hold a {MODEL} model of the authors' layout; --to authors starts from ours"
        )
    saved = checkpoint.get("model", checkpoint)
    # detectron2 also writes NumPy arrays.
    arrays = {k: torch.as_tensor(v) for k, v in saved.items() if isinstance(v, (Tensor, np.ndarray))}
    state = state_dict_of(arrays)
    renamed = rename({k: v for k, v in state.items() if not _DUPLICATE.fullmatch(k)}, RULES, to="ours")
    require_complete(renamed.state, _expected(renamed.state), MODEL)
    meta: dict[str, Any] = {"converted_from": "detrex"}
    num_classes = len(renamed.state["bbox_head.cls_branches.0.weight"])
    named = stated_classes(checkpoint.get("meta", {}))
    if not named and num_classes == len(CocoDataset.METAINFO["classes"]):
        named = dict(CocoDataset.METAINFO)
    if named:
        meta["dataset_meta"] = named
    result = {"meta": meta, "state_dict": renamed.state}
    return Conversion(result, renamed.unmatched, len(renamed.state), _describe(renamed.state), num_classes)


def to_authors(checkpoint: Mapping[str, Any]) -> Conversion:
    """Our checkpoint to the authors' layout, with the heads that their decoder registers a second time.

    Raises:
        UserError: the file does not hold this model.
    """
    ours = {k: v for k, v in state_dict_of(checkpoint).items() if not k.endswith("num_batches_tracked")}
    require_complete(ours, _expected(ours), MODEL)
    renamed = rename(ours, RULES, to="authors")
    heads = {k: v for k, v in renamed.state.items() if k.startswith(("class_embed.", "bbox_embed."))}
    renamed.state.update({f"transformer.decoder.{key}": value for key, value in heads.items()})
    result: dict[str, Any] = {"model": renamed.state}
    meta = authors_meta(checkpoint)
    if meta:
        result["meta"] = meta  # of no use to detectron2, but a way back finds the names of the classes in it
    num_classes = len(ours["bbox_head.cls_branches.0.weight"])
    return Conversion(result, renamed.unmatched, len(ours), _describe(ours), num_classes)


def _expected(state: State) -> dict[str, tuple[int, ...]]:
    """Shapes of everything beyond the backbone, in a model of the sizes that the weights themselves show."""

    def shape(key: str) -> torch.Size:
        return require_weight(state, key, MODEL).shape

    num_levels, embed_dims = shape("transformer.level_embed")
    num_classes = shape("bbox_head.cls_branches.0.weight")[0]
    layer = "transformer.encoder.layers.0"
    samples = shape(f"{layer}.self_attn.attention_weights.weight")[0]
    feedforward_channels = shape(f"{layer}.ffn.layers.0.0.weight")[0]
    content = state.get("transformer.query_embedding.weight")
    tables = [*(v for k, v in state.items() if ".rank_aware_content_query." in k or ".rank_adaptive_" in k), content]
    num_queries = next((len(table) for table in tables if table is not None), 1)
    depth = {half: count_numbers(state, rf"transformer\.{half}\.layers\.(\d+)\..+") for half in ("encoder", "decoder")}
    with torch.device("meta"):
        transformer = RankDetrTransformer(
            embed_dims=embed_dims,
            num_heads=1,  # the number of heads does not show in shapes, its product with the points does
            num_points=samples // num_levels,
            num_levels=num_levels,
            feedforward_channels=feedforward_channels,
            num_encoder_layers=depth["encoder"],
            num_decoder_layers=depth["decoder"],
            num_queries_one2one=num_queries,
            num_queries_one2many=0,
            query_rank_layer=any(".rank_aware_content_query." in key for key in state),
            mixed_selection=content is not None,
        )
        rank_adaptive = any(".rank_adaptive_classhead_emb." in key for key in state)
        head = RankDetrHead(num_classes, embed_dims, depth["decoder"], num_queries, rank_adaptive)
    shapes = {f"transformer.{key}": tuple(value.shape) for key, value in transformer.state_dict().items()}
    shapes.update({f"bbox_head.{key}": tuple(value.shape) for key, value in head.state_dict().items()})
    for convs in ("convs", "extra_convs"):
        for i in range(count_numbers(state, rf"neck\.{convs}\.(\d+)\..+")):
            for name in ("conv.bias", "gn.weight", "gn.bias"):
                shapes[f"neck.{convs}.{i}.{name}"] = (embed_dims,)
    first = "backbone.conv1.weight" if "backbone.conv1.weight" in state else "backbone.patch_embed.projection.weight"
    shapes[first] = tuple(state[first].shape) if first in state else ()
    return shapes


def _describe(state: State) -> str:
    backbone = "ResNet" if "backbone.conv1.weight" in state else "Swin"
    rank_layer = any(".rank_aware_content_query." in key for key in state)
    rank_head = any(".rank_adaptive_classhead_emb." in key for key in state)
    designs = {"query rank layer": rank_layer, "rank-adaptive class head": rank_head}
    return f"{backbone} backbone, " + ", ".join(f"{'with' if on else 'without'} {name}" for name, on in designs.items())
