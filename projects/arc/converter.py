"""Published ARC checkpoints (OBBDetection layout) to ours and back: whole detectors, and backbones without a prefix.

A plain ResNet (torchvision's, mmdet's) becomes a start for an ARC-ResNet of the published layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmdet.models.backbones import ResNet
from mmdet.models.backbones.resnet import Bottleneck
from torch import Tensor

from perception.engine.checkpoint import state_dict_of
from perception.engine.convert import (
    Conversion,
    State,
    authors_meta,
    count_numbers,
    rename,
    require_complete,
    require_weight,
    stated_classes,
)
from perception.engine.convert_shapes import oriented_rcnn_shapes, shapes_of
from perception.engine.errors import UserError

from .backbone import ARCResNet
from .names import KERNEL_NUMBER, classifier_rules, detector_rules, inflate, is_plain_resnet

MODEL = "ARC"


def to_perception(checkpoint: Mapping[str, Any]) -> Conversion:
    """Converts the authors' file, or makes a start for an ARC-ResNet from the weights of a plain one.

    Raises:
        UserError: the file holds neither, or not all of it.
    """
    state = state_dict_of(checkpoint)
    if is_plain_resnet(state):
        return _start(state)
    prefix = _prefix(state, "rounting_func")
    renamed = rename(state, detector_rules() if prefix else classifier_rules(), to="ours")
    require_complete(renamed.state, _expected(renamed.state, prefix), MODEL)
    result: dict[str, Any] = {"state_dict": renamed.state}
    named = stated_classes(checkpoint.get("meta", {}))
    if named:
        result["meta"] = {"dataset_meta": named}
    return _conversion(result, renamed.state, renamed.unmatched, prefix)


def to_authors(checkpoint: Mapping[str, Any]) -> Conversion:
    """Converts a checkpoint of ours to the authors' layout.

    Raises:
        UserError: the file holds no ARC weights, or not all of a model.
    """
    ours = state_dict_of(checkpoint)
    prefix = _prefix(ours, "routing")
    renamed = rename(ours, detector_rules() if prefix else classifier_rules(), to="authors")
    require_complete(ours, _expected(ours, prefix), MODEL)
    result: dict[str, Any] = {"state_dict": renamed.state}
    meta = authors_meta(checkpoint)
    if meta:
        result["meta"] = meta
    return _conversion(result, renamed.state, renamed.unmatched, prefix)


def _start(plain: State) -> Conversion:
    known = rename(plain, classifier_rules(), to="ours")
    require_complete(known.state, _backbone_shapes(known.state), "ResNet")
    inflated = inflate(known.state)
    description = f"start for an ARC backbone from a plain ResNet, its 3x3 kernels in {KERNEL_NUMBER} copies"
    return Conversion({"state_dict": inflated}, known.unmatched, len(inflated), description)


def _prefix(state: Mapping[str, Tensor], mark: str) -> str:
    """What the keys of the backbone start with: "backbone." in a detector, nothing in a bare backbone."""
    for key in state:
        if f".conv2.{mark}." in key:
            return "backbone." if key.startswith("backbone.") else ""
    raise UserError(
        f"this file does not hold an {MODEL} model: no weight of it is part of a routing function "
        "(nor is it a plain ResNet of 50 or more layers)"
    )


def _conversion(checkpoint: dict[str, Any], state: State, unmatched: list[str], prefix: str) -> Conversion:
    num_classes = len(state["roi_head.bbox_head.fc_cls.weight"]) - 1 if prefix else None  # less the background
    return Conversion(checkpoint, unmatched, len(state), _described(prefix), num_classes)


def _described(prefix: str) -> str:
    return f"{MODEL} detector" if prefix else f"{MODEL} backbone"


def _expected(ours: State, prefix: str) -> dict[str, tuple[int, ...]]:
    """Shapes of all weights of a model of the sizes that the weights themselves show."""
    bare = {key.removeprefix(prefix): value for key, value in ours.items() if key.startswith(prefix)}
    shapes = {f"{prefix}{key}": shape for key, shape in _backbone_shapes(bare).items()}
    if prefix:
        shapes.update(oriented_rcnn_shapes(ours, MODEL))
    return shapes


def _backbone_shapes(state: State) -> dict[str, tuple[int, ...]]:
    """Of an ARC-ResNet, or of a plain ResNet where no block has a routing function."""
    blocks = [count_numbers(state, rf"layer{stage}\.(\d+)\..+") for stage in range(1, 5)]
    num_stages = blocks.index(0) if 0 in blocks else len(blocks)
    settings = {depth: counts for depth, (block, counts) in ResNet.arch_settings.items() if block is Bottleneck}
    depths = [depth for depth, counts in settings.items() if list(counts[:num_stages]) == blocks[:num_stages]]
    if not depths or num_stages == 0:
        raise UserError(f"this file does not hold an {MODEL} model: its stages have {blocks} blocks, as no ResNet does")
    routed = [(stage, b) for stage in range(num_stages) for b in range(blocks[stage]) if _routed(state, stage, b)]
    kernel_number = 1
    if routed:
        stage, block = routed[0]
        kernel_number = len(require_weight(state, f"layer{stage + 1}.{block}.conv2.weight", MODEL))
    with torch.device("meta"):
        model = ARCResNet(
            depths[0],
            replace=[[b for s, b in routed if s == stage] for stage in range(num_stages)],
            kernel_number=kernel_number,
            num_stages=num_stages,
            strides=(1, 2, 2, 2)[:num_stages],
            dilations=(1, 1, 1, 1)[:num_stages],
            out_indices=tuple(range(num_stages)),
            stem_channels=len(require_weight(state, "conv1.weight", MODEL)),
            base_channels=len(require_weight(state, "layer1.0.conv1.weight", MODEL)),
        )
    return shapes_of(model)


def _routed(state: State, stage: int, block: int) -> bool:
    return any(key.startswith(f"layer{stage + 1}.{block}.conv2.routing.") for key in state)
