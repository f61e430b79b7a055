"""Published ARC checkpoints (OBBDetection layout) to ours and back: whole detectors, and backbones without a prefix.

A plain ResNet (torchvision's, mmdet's) becomes a start for an ARC-ResNet of the published layout.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from perception.engine.checkpoint import state_dict_of
from perception.engine.convert import Conversion, Rename, State, rename
from perception.engine.errors import UserError

MODEL = "ARC"
KERNEL_NUMBER = 4  # of the published models
_ANGLE_ROW = 4  # of the five numbers that the box head regresses
_REPLACED = re.compile(r"layer[234]\.\d+\.conv2\.weight").fullmatch


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
    """Converts the authors' file, or makes a start for an ARC-ResNet from the weights of a plain one.

    Raises:
        UserError: the file holds neither.
    """
    state = state_dict_of(checkpoint)
    if is_plain_resnet(state):
        inflated = inflate(state)
        description = f"start for an ARC backbone from a plain ResNet, its 3x3 kernels in {KERNEL_NUMBER} copies"
        return Conversion({"state_dict": inflated}, [], len(inflated), description)
    return _convert(state, "rounting_func", "ours")


def to_authors(checkpoint: Mapping[str, Any]) -> Conversion:
    """Converts a checkpoint of ours to the authors' layout.

    Raises:
        UserError: the file holds no ARC weights.
    """
    return _convert(state_dict_of(checkpoint), "routing", "authors")


def inflate(state: Mapping[str, Tensor], kernel_number: int = KERNEL_NUMBER) -> State:
    """Weights of a plain ResNet for an ARC-ResNet that replaces all of stages 2 to 4, without its routing functions.

    Every 3x3 kernel is copied to all n places, times 2 / n: fresh routing functions open their gates by a half and
    turn by next to nothing, so that the sum is the plain kernel.

    Args:
        state: weights with the keys of torchvision's ``resnet50``, or of a backbone of mmdet.
        kernel_number: n.
    """
    return {
        key: (value * (2 / kernel_number)).expand(kernel_number, *value.shape).clone() if _REPLACED(key) else value
        for key, value in state.items()
    }


def is_plain_resnet(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the weights of a ResNet with bottlenecks and ordinary convolutions."""
    kernels = [value for key, value in state.items() if _REPLACED(key)]
    return "layer2.0.conv3.weight" in state and all(kernel.dim() == 4 for kernel in kernels)


def _convert(state: Mapping[str, Tensor], mark: str, to: str) -> Conversion:
    keys = [key for key in state if f".conv2.{mark}." in key]
    if not keys:
        raise UserError(
            f"this file does not hold an {MODEL} model: no weight of it is part of a routing function "
            "(nor is it a plain ResNet of 50 or more layers)"
        )
    prefix = "backbone." if keys[0].startswith("backbone.") else ""
    renamed = rename(state, _rules(prefix), to=to)
    part = "detector" if prefix else "backbone"
    return Conversion({"state_dict": renamed.state}, renamed.unmatched, len(renamed.state), f"{MODEL} {part}")
