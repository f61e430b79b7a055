"""Shapes of the weights of models that several systems share, for converters that want all of a model.

The sizes are those that the weights themselves show; a model is then refused if one of them does not fit the others.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from mmdet.models.backbones import ResNet
from torch import nn

from .convert import State, count_numbers, require_weight
from .errors import UserError

Shapes = dict[str, tuple[int, ...]]

COUNTER = "num_batches_tracked"
"""Of batch-norm steps: absent from older files, without effect on what a model predicts."""


def shapes_of(module: nn.Module, prefix: str = "") -> Shapes:
    """Of the weights of a module, without counters, by keys that begin with ``prefix``."""
    state = module.state_dict(prefix=prefix)
    return {key: tuple(value.shape) for key, value in state.items() if not key.endswith(COUNTER)}


def with_biases(layers: Mapping[str, tuple[int, ...]]) -> Shapes:
    """Of layers that have a bias for each row of their weight, by the names of the layers."""
    weights = {f"{key}.weight": tuple(size) for key, size in layers.items()}
    return weights | {f"{key}.bias": tuple(size[:1]) for key, size in layers.items()}


def is_known(key: str, expected: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a key is one of a model's, or the counter of one of its norms."""
    norm, _, name = key.rpartition(".")
    return key in expected or (name == COUNTER and f"{norm}.running_mean" in expected)


def resnet_shapes(state: State, model: str, prefix: str = "backbone.") -> Shapes:
    """Of mmdet's ResNet with four stages.

    Args:
        state: weights.
        model: name of the system, for messages.
        prefix: of the backbone's keys.

    Raises:
        UserError: the blocks are not those of a ResNet.
    """
    blocks = [count_numbers(state, rf"{prefix}layer{stage}\.(\d+)\..+") for stage in range(1, 5)]
    deep = f"{prefix}layer1.0.conv3.weight" in state
    depths = [
        depth
        for depth, (block, counts) in ResNet.arch_settings.items()
        if list(counts) == blocks and (block.expansion == 4) == deep
    ]
    if not depths:
        raise UserError(f"this file does not hold a {model} model: its stages have {blocks} blocks, as no ResNet does")
    stem, base = (len(require_weight(state, f"{prefix}{key}.weight", model)) for key in ("conv1", "layer1.0.conv1"))
    with torch.device("meta"):
        backbone = ResNet(depths[0], stem_channels=stem, base_channels=base)
    return shapes_of(backbone, prefix)


def oriented_rcnn_shapes(state: State, model: str, prefix: str = "") -> Shapes:
    """Of the pyramid and the heads of an Oriented R-CNN on a ResNet with bottlenecks.

    Args:
        state: weights.
        model: name of the system, for messages.
        prefix: of the names of backbone, neck and heads.

    Raises:
        UserError: a weight that tells sizes is missing.
    """

    def shape(key: str) -> tuple[int, ...]:
        return tuple(require_weight(state, f"{key}.weight", model).shape)

    backbone, neck = f"{prefix}backbone", f"{prefix}neck"
    rpn, box = f"{prefix}rpn_head", f"{prefix}roi_head.bbox_head"
    channels = shape(f"{neck}.lateral_convs.0.conv")[0]
    hidden = shape(f"{rpn}.rpn_conv")[0]
    anchors = shape(f"{rpn}.rpn_cls")[0]
    wide, pooled = shape(f"{box}.shared_fcs.0")
    layers: Shapes = {
        f"{rpn}.rpn_conv": (hidden, channels, 3, 3),
        f"{rpn}.rpn_cls": (anchors, hidden, 1, 1),
        f"{rpn}.rpn_reg": (6 * anchors, hidden, 1, 1),
        f"{box}.shared_fcs.0": (wide, pooled),
        f"{box}.shared_fcs.1": (wide, wide),
        f"{box}.fc_cls": (shape(f"{box}.fc_cls")[0], wide),
        f"{box}.fc_reg": (5, wide),  # the same regression for all classes
    }
    stages = count_numbers(state, rf"{backbone}\.layer(\d+)\..+") - 1
    for level in range(stages):
        deep = shape(f"{backbone}.layer{level + 1}.0.conv3")[0]
        layers[f"{neck}.lateral_convs.{level}.conv"] = (channels, deep, 1, 1)
        layers[f"{neck}.fpn_convs.{level}.conv"] = (channels, channels, 3, 3)
    return with_biases(layers)
