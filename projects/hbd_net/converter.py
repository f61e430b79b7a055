"""Published HBD-Net checkpoints to ours and back.

Ours have the names of the released two-branch detector: ``backbone``, ``neck``, ``rpn_head``, ``roi_head`` for the
native image, the same with ``global_`` in front for reduced ones, and ``fusion_convs``. Two other layouts become that
one: the authors' merged file of one detector for each level (``backbone_d2``, ``backbone_d4``, ...), and a plain
Oriented R-CNN, which goes into both branches. Neither has weights of the fusion, which then starts anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

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
from perception.engine.convert_shapes import Shapes, is_known, oriented_rcnn_shapes, resnet_shapes, shapes_of
from perception.engine.errors import UserError

from .fusion import InterLevelFusion

MODEL = "HBD-Net"
PARTS = ("backbone", "neck", "rpn_head", "roi_head")
GLOBAL = "global_"
"""In front of the names of the parts that work on reduced images."""
_LEVEL = re.compile(rf"(?:{'|'.join(PARTS)})_d(\d+)\..+")


def to_perception(checkpoint: Mapping[str, Any], level: int | None = None) -> Conversion:
    """Converts a file of any of the three layouts.

    Args:
        checkpoint: as loaded; it needs no ``meta``.
        level: of a file with one detector for each level, the reduction whose detector becomes the one of reduced
            images. By default the least one.

    Raises:
        UserError: the file holds none of the three, or not all of it, or not that level.
    """
    state = state_dict_of(checkpoint)
    levels = sorted({int(match[1]) for key in state if (match := _LEVEL.fullmatch(key))} - {1})
    if any(key.startswith(GLOBAL) for key in state):
        description, ours, left_out = "both branches", dict(state), []
    elif levels:
        chosen = levels[0] if level is None else level
        if chosen not in levels:
            raise UserError(f"this file has detectors of the levels {', '.join(map(str, levels))}, not of {chosen}")
        renamed = rename(state, _level_rules(chosen), to="ours")
        description, ours, left_out = f"native detector and that of level {chosen}", renamed.state, renamed.unmatched
    elif "rpn_head.rpn_reg.weight" in state:
        mine = {key: value for key, value in state.items() if key.startswith(tuple(f"{part}." for part in PARTS))}
        description, ours = "plain Oriented R-CNN in both branches", mine | _copied(mine)
        left_out = [key for key in state if key not in mine]
    else:
        raise UserError(f"this file does not hold a {MODEL} model: it has no weight rpn_head.rpn_reg.weight")
    meta = stated_classes(checkpoint.get("meta", {}))
    return _conversion(ours, left_out, {"dataset_meta": meta} if meta else {}, description)


def to_authors(checkpoint: Mapping[str, Any]) -> Conversion:
    """Converts a checkpoint of ours to the released two-branch detector's layout.

    Raises:
        UserError: the file does not hold both branches, or not all of them.
    """
    return _conversion(dict(state_dict_of(checkpoint)), [], authors_meta(checkpoint), "both branches")


def _conversion(ours: State, left_out: list[str], meta: dict[str, Any], description: str) -> Conversion:
    expected: Shapes = {}
    for prefix in ("", GLOBAL):
        expected |= resnet_shapes(ours, MODEL, f"{prefix}backbone.") | oriented_rcnn_shapes(ours, MODEL, prefix)
    num_classes = len(ours["roi_head.bbox_head.fc_cls.weight"]) - 1  # less the background
    wide = ours[f"{GLOBAL}roi_head.bbox_head.shared_fcs.1.weight"].shape[0]
    expected[f"{GLOBAL}roi_head.bbox_head.fc_cls.weight"] = (num_classes + 1, wide)
    fusion = _fusion_shapes(ours)
    require_complete(ours, expected | fusion, MODEL)
    known = {key: value for key, value in ours.items() if is_known(key, expected | fusion)}
    result: dict[str, Any] = {"state_dict": known}
    if meta:
        result["meta"] = meta
    unmatched = [*left_out, *(key for key in ours if key not in known)]
    described = f"{description}, {'with' if fusion else 'without'} fusion"
    return Conversion(result, unmatched, len(known), described, num_classes)


def _fusion_shapes(state: State) -> Shapes:
    """Of the fusion; empty if the file has no weights of it at all."""
    count = count_numbers(state, r"fusion_convs\.(\d+)\..+")
    if not count:
        return {}
    channels = len(require_weight(state, "neck.lateral_convs.0.conv.weight", MODEL))
    with torch.device("meta"):
        return shapes_of(InterLevelFusion(channels, count), "fusion_convs.")


def _level_rules(level: int) -> list[Rename]:
    """The native detector has plain names, or the level 1."""
    rules = []
    for part in PARTS:
        rules.append(Rename(f"{part}_d{level}.{{rest}}", f"{GLOBAL}{part}.{{rest}}"))
        rules.append(Rename(f"{part}_d1.{{rest}}", f"{part}.{{rest}}"))
        rules.append(Rename(f"{part}.{{rest}}", f"{part}.{{rest}}"))
    return rules


def _copied(state: State) -> State:
    return {f"{GLOBAL}{key}": value.clone() for key, value in state.items()}
