"""Published FreqFusion checkpoints to ours and back.

Three layouts, told apart by their keys: detectors with the neck (mmdet 2), SegNeXt (mmseg 0.x, whose backbone names
differ), and Mask2Former (detectron2), which becomes a model of mmdet for COCO panoptic and of mmseg otherwise.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmdet.datasets import CocoDataset, CocoPanopticDataset
from mmseg.datasets import ADE20KDataset, CityscapesDataset, COCOStuffDataset
from torch import Tensor

from perception.engine.checkpoint import state_dict_of
from perception.engine.convert import (
    Conversion,
    Rename,
    State,
    authors_meta,
    rename,
    require_complete,
    require_weight,
    stated_classes,
)
from perception.engine.convert_backbones import resnet_rules, swin_rules
from perception.engine.errors import UserError

from .fusion import FreqFusion

MODEL = "FreqFusion"
# Where each layout keeps its fusions, and how many go with the other weights.
_FUSION = re.compile(
    r"(?P<list>neck\.alignment|decode_head\.freqfusions|(?:sem_seg_head|decode_head|panoptic_head)\.pixel_decoder"
    r"\.freqfusions)\.(?P<number>\d+)\.(?P<rest>.+)"
)
_PANOPTIC_CLASSES = 133


def _same(*prefixes: str) -> list[Rename]:
    return [Rename(f"{prefix}.{{rest}}", f"{prefix}.{{rest}}") for prefix in prefixes]


DETECTOR_RULES = _same(
    "backbone",
    "neck.lateral_convs",
    "neck.fpn_convs",
    "neck.alignment",
    "rpn_head",
    "roi_head",
    "semantic_head",
)
SEGNEXT_RULES = [
    Rename("backbone.block{i}.{j}.mlp.dwconv.dwconv.{rest}", "backbone.block{i}.{j}.mlp.dwconv.{rest}"),
    *_same(
        "backbone",
        "decode_head.freqfusions",
        "decode_head.low2high_convs",
        "decode_head.squeeze",
        "decode_head.hamburger",
        "decode_head.align",
        "decode_head.conv_seg",
    ),
]


def _mask2former_rules(head: str) -> list[Rename]:
    """detectron2's names to mmdet's, below ``head`` ("decode_head" in mmseg, "panoptic_head" in mmdet)."""
    theirs, ours = "sem_seg_head.pixel_decoder", f"{head}.pixel_decoder"
    rules = [
        *resnet_rules(),
        *swin_rules(),
        Rename(f"{theirs}.input_proj.{{i}}.0.{{rest}}", f"{ours}.input_convs.{{i}}.conv.{{rest}}"),
        Rename(f"{theirs}.input_proj.{{i}}.1.{{rest}}", f"{ours}.input_convs.{{i}}.gn.{{rest}}"),
        Rename(f"{theirs}.adapter_1.norm.{{rest}}", f"{ours}.lateral_convs.0.gn.{{rest}}"),
        Rename(f"{theirs}.adapter_1.{{rest}}", f"{ours}.lateral_convs.0.conv.{{rest}}"),
        Rename(f"{theirs}.layer_1.norm.{{rest}}", f"{ours}.output_convs.0.gn.{{rest}}"),
        Rename(f"{theirs}.layer_1.{{rest}}", f"{ours}.output_convs.0.conv.{{rest}}"),
        Rename(f"{theirs}.mask_features.{{rest}}", f"{ours}.mask_feature.{{rest}}"),
        Rename(f"{theirs}.transformer.level_embed", f"{ours}.level_encoding.weight"),
        Rename(f"{theirs}.freqfusions.{{rest}}", f"{ours}.freqfusions.{{rest}}"),
    ]
    layer, own = f"{theirs}.transformer.encoder.layers.{{i}}", f"{ours}.encoder.layers.{{i}}"
    rules += [
        Rename(f"{layer}.self_attn.{{rest}}", f"{own}.self_attn.{{rest}}"),
        Rename(f"{layer}.norm1.{{rest}}", f"{own}.norms.0.{{rest}}"),
        Rename(f"{layer}.linear1.{{rest}}", f"{own}.ffn.layers.0.0.{{rest}}"),
        Rename(f"{layer}.linear2.{{rest}}", f"{own}.ffn.layers.1.{{rest}}"),
        Rename(f"{layer}.norm2.{{rest}}", f"{own}.norms.1.{{rest}}"),
    ]
    theirs, own = "sem_seg_head.predictor", f"{head}.transformer_decoder.layers.{{i}}"
    # Cross attention comes first in a layer, so the first norm is its.
    for number, (part, attention, name) in enumerate(
        (("cross_attention", "multihead_attn", "cross_attn"), ("self_attention", "self_attn", "self_attn"))
    ):
        layer = f"{theirs}.transformer_{part}_layers.{{i}}"
        rules.append(Rename(f"{layer}.{attention}.{{rest}}", f"{own}.{name}.attn.{{rest}}"))
        rules.append(Rename(f"{layer}.norm.{{rest}}", f"{own}.norms.{number}.{{rest}}"))
    layer = f"{theirs}.transformer_ffn_layers.{{i}}"
    rules += [
        Rename(f"{layer}.linear1.{{rest}}", f"{own}.ffn.layers.0.0.{{rest}}"),
        Rename(f"{layer}.linear2.{{rest}}", f"{own}.ffn.layers.1.{{rest}}"),
        Rename(f"{layer}.norm.{{rest}}", f"{own}.norms.2.{{rest}}"),
        Rename(f"{theirs}.decoder_norm.{{rest}}", f"{head}.transformer_decoder.post_norm.{{rest}}"),
        Rename(f"{theirs}.class_embed.{{rest}}", f"{head}.cls_embed.{{rest}}"),
    ]
    for name in ("query_feat", "query_embed", "level_embed"):
        rules.append(Rename(f"{theirs}.{name}.{{rest}}", f"{head}.{name}.{{rest}}"))
    for number in range(3):  # ours counts the activations in between
        rules.append(
            Rename(f"{theirs}.mask_embed.layers.{number}.{{rest}}", f"{head}.mask_embed.{2 * number}.{{rest}}")
        )
    return rules


def to_perception(checkpoint: Mapping[str, Any]) -> Conversion:
    """Authors' checkpoint to ours.

    Raises:
        UserError: the file does not hold such a model, or not all of it.
    """
    # detectron2 also writes NumPy arrays.
    saved = checkpoint.get("model", checkpoint.get("state_dict", checkpoint))
    arrays = {k: torch.as_tensor(v) for k, v in saved.items() if isinstance(v, (Tensor, np.ndarray))}
    state = state_dict_of(arrays)
    place = _place(state)
    if place.startswith("sem_seg_head."):
        logits = require_weight(state, "sem_seg_head.predictor.class_embed.weight", MODEL)
        head = "panoptic_head" if len(logits) == _PANOPTIC_CLASSES + 1 else "decode_head"
        renamed = rename(state, _mask2former_rules(head), to="ours")
    elif "pixel_decoder" in place:
        raise UserError(f"this {MODEL} model already has our names; --to authors starts from ours")
    else:
        renamed = rename(state, DETECTOR_RULES if place == "neck.alignment" else SEGNEXT_RULES, to="ours")
    ours = renamed.state
    require_complete(ours, _expected(ours), MODEL)
    meta: dict[str, Any] = {"converted_from": _layout(_place(ours))}
    named = stated_classes(checkpoint.get("meta", {})) or _usual_classes(ours)
    if named:
        meta["dataset_meta"] = named
    result = {"meta": meta, "state_dict": ours}
    return Conversion(result, renamed.unmatched, len(ours), _describe(ours), _num_classes(ours))


def to_authors(checkpoint: Mapping[str, Any]) -> Conversion:
    """Our checkpoint to the authors' layout.

    Raises:
        UserError: the file does not hold such a model, or not all of it.
    """
    ours = state_dict_of(checkpoint)
    place = _place(ours)
    if place.startswith("sem_seg_head."):
        raise UserError(f"this {MODEL} model already has the authors' names; --to perception starts from them")
    require_complete(ours, _expected(ours), MODEL)
    if "pixel_decoder" in place:
        kept = {key: value for key, value in ours.items() if not key.endswith("num_batches_tracked")}
        renamed = rename(kept, _mask2former_rules(place.split(".")[0]), to="authors")
        layout = "model"
    else:
        renamed = rename(ours, DETECTOR_RULES if place == "neck.alignment" else SEGNEXT_RULES, to="authors")
        layout = "state_dict"
    # detectron2 does not read the meta data, but a way back finds the names of the classes in it.
    result = {"meta": authors_meta(checkpoint), layout: renamed.state}
    return Conversion(result, renamed.unmatched, len(renamed.state), _describe(ours), _num_classes(ours))


def _place(state: Mapping[str, Tensor]) -> str:
    """Prefix of the fusions' weights."""
    for key in state:
        match = _FUSION.fullmatch(key)
        if match:
            return match["list"]
    raise UserError(f"this file does not hold a {MODEL} model: no weight of it is part of a fusion")


def _layout(place: str) -> str:
    if "pixel_decoder" in place:
        return "detectron2"
    return "mmdet 2" if place == "neck.alignment" else "mmseg 0.x"


def _expected(ours: State) -> dict[str, tuple[int, ...]]:
    """Shapes of all fusions, in the settings that their own weights show, and of a weight from each other part."""
    place = _place(ours)
    if place == "neck.alignment":
        levels = {key.split(".")[2] for key in ours if key.startswith("neck.lateral_convs.")}
        number, others = len(levels) - 1, ["backbone.conv1.weight", "rpn_head.rpn_conv.weight"]
    elif place == "decode_head.freqfusions":
        number, others = 2, ["backbone.block1.0.mlp.dwconv.weight", "decode_head.conv_seg.weight"]
    else:
        head, number = place.split(".")[0], 3
        swin = any(key.startswith("backbone.stages.") for key in ours)
        first = "backbone.patch_embed.projection.weight" if swin else "backbone.conv1.weight"
        others = [first, f"{head}.pixel_decoder.level_encoding.weight", f"{head}.cls_embed.weight"]
    shapes = {key: tuple(require_weight(ours, key, MODEL).shape) for key in others}
    for index in range(number):
        prefix = f"{place}.{index}"
        part = {m["rest"]: v for k, v in ours.items() if (m := _FUSION.fullmatch(k)) and k.startswith(f"{prefix}.")}
        for key, value in _like(prefix, part).state_dict().items():
            shapes[f"{prefix}.{key}"] = tuple(value.shape)
    return shapes


def _like(prefix: str, part: State) -> FreqFusion:
    """A fusion, without values, with the settings that weights show."""

    def shape(key: str) -> tuple[int, ...]:
        if key not in part:
            raise UserError(f"this file does not hold a {MODEL} model: it has no weight {prefix}.{key}")
        return tuple(part[key].shape)

    compressed, hr_channels = shape("hr_channel_compressor.weight")[:2]
    high_pass = any(key.startswith("content_encoder2.") for key in part)
    settings: dict[str, Any] = dict(
        hamming_window=len(shape("hamming_lowpass")) > 1,
        encoder_kernel=shape("content_encoder.weight")[-1],
        use_high_pass=high_pass,
        comp_feat_upsample=high_pass,  # does not show, but cannot be without the high pass
        **_kernels(
            shape("content_encoder.bias")[0],
            shape("content_encoder2.bias")[0] if high_pass else None,
            shape("hamming_lowpass"),
            shape("hamming_highpass"),
        ),
    )
    if any(key.startswith("dysampler.") for key in part):
        offset = shape("dysampler.offset.weight")
        settings.update(
            feature_resample=True,
            feature_resample_group=offset[0] // 8,
            feature_resample_norm="dysampler.norm_hr.weight" in part,
            direction_feat="sim_concat" if offset[1] > 8 else "sim",
        )
    try:
        with torch.device("meta"):
            return FreqFusion(hr_channels, shape("lr_channel_compressor.weight")[1], compressed, **settings)
    except ValueError as error:  # settings that exclude each other
        raise UserError(f"this file does not hold a {MODEL} model: of {prefix}, {error}") from error


def _kernels(low: int, high: int | None, low_window: Sequence[int], high_window: Sequence[int]) -> dict[str, int]:
    """Sides of the kernels and their groups.

    Args:
        low: numbers per place that the low-pass kernels take, side^2 times groups.
        high: the same of the high-pass ones, if there are any.
        low_window: shape of the window, which ends with the side of the kernels if it is one.
        high_window: likewise.
    """
    sides = range(1, 64, 2)
    lows, highs = ([window[-1]] if len(window) > 1 else sides for window in (low_window, high_window))
    # Without windows several answers can fit, all of which make the same shapes.
    for group, first, second in itertools.product(range(1, low + 1), lows, highs):
        if first**2 * group == low and high in (None, second**2 * group):
            return dict(lowpass_kernel=first, highpass_kernel=second, up_group=group)
    # None: the comparison of shapes says what is wrong.
    windows = {"lowpass_kernel": low_window, "highpass_kernel": high_window}
    return {name: window[-1] for name, window in windows.items() if len(window) > 1}


def _usual_classes(ours: State) -> dict[str, Any]:
    """Names and colours of the classes of the data set with as many, of those that models were published for."""
    known: dict[int | None, type]
    place = _place(ours)
    if place == "neck.alignment":
        known = {80: CocoDataset, 133: CocoPanopticDataset}
    else:
        known = {150: ADE20KDataset, 19: CityscapesDataset, 171: COCOStuffDataset, 133: CocoPanopticDataset}
    found = known.get(_num_classes(ours))
    return dict(found.METAINFO) if found else {}


def _num_classes(ours: State) -> int | None:
    """How many classes a model tells apart; None where it has no weights that say so."""
    place = _place(ours)
    if place == "decode_head.freqfusions":
        return len(ours["decode_head.conv_seg.weight"])
    if place != "neck.alignment":
        return len(ours[f"{place.split('.')[0]}.cls_embed.weight"]) - 1  # less "no object"
    box, stuff = (ours.get(f"{key}.weight") for key in ("roi_head.bbox_head.fc_cls", "semantic_head.conv_logits"))
    if box is None:
        return None
    things = len(box) - 1  # less the background
    return things if stuff is None else things + len(stuff) - 1  # less one for all things


def _describe(ours: State) -> str:
    place = _place(ours)
    system = "Mask2Former" if "pixel_decoder" in place else "SegNeXt"
    if place == "neck.alignment":
        system = "Panoptic FPN" if any(k.startswith("semantic_head.") for k in ours) else "Faster R-CNN"
        if system == "Faster R-CNN" and any(k.startswith("roi_head.mask_head.") for k in ours):
            system = "Mask R-CNN"
    number = len({m["number"] for key in ours if (m := _FUSION.fullmatch(key))})
    return f"{system} with {number} fusions, from or for {_layout(place)}"
