"""Published ARC checkpoints (OBBDetection layout) to ours and back: whole detectors, and backbones without a prefix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from perception.engine.checkpoint import state_dict_of
from perception.engine.convert import Conversion, Rename, rename
from perception.engine.errors import UserError

MODEL = "ARC"
_ANGLE_ROW = 4  # of the five numbers that the box head regresses


def _negate_angle(value: Tensor) -> Tensor:
    """Their angles turn counter-clockwise, ours clockwise."""
    value = value.clone()
    value[_ANGLE_ROW::5] *= -1
    return value


def _rules(prefix: str) -> list[Rename]:
    routing = f"{prefix}layer{{i}}.{{j}}.conv2"
    rules = [
        Rename(f"{routing}.rounting_func.norm.norm.{{rest}}", f"{routing}.routing.norm.{{rest}}"),
        Rename(f"{routing}.rounting_func.{{rest}}", f"{routing}.routing.{{rest}}"),
    ]
    if prefix:
        head = "roi_head.bbox_head.fc_reg.{rest}"
        rules.append(Rename(head, head, _negate_angle, _negate_angle))
    return [*rules, Rename("{rest}", "{rest}")]


def to_perception(checkpoint: Mapping[str, Any]) -> Conversion:
    """Converts the authors' file.

    Raises:
        UserError: the file holds no ARC weights.
    """
    return _convert(state_dict_of(checkpoint), "rounting_func", "ours")


def to_authors(checkpoint: Mapping[str, Any]) -> Conversion:
    """Converts a checkpoint of ours to the authors' layout.

    Raises:
        UserError: the file holds no ARC weights.
    """
    return _convert(state_dict_of(checkpoint), "routing", "authors")


def _convert(state: Mapping[str, Tensor], mark: str, to: str) -> Conversion:
    keys = [key for key in state if f".conv2.{mark}." in key]
    if not keys:
        raise UserError(f"this file does not hold an {MODEL} model: no weight of it is part of a routing function")
    prefix = "backbone." if keys[0].startswith("backbone.") else ""
    renamed = rename(state, _rules(prefix), to=to)
    part = "detector" if prefix else "backbone"
    return Conversion({"state_dict": renamed.state}, renamed.unmatched, len(renamed.state), f"{MODEL} {part}")
