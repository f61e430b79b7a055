"""Published CATNet checkpoints to ours and back. Both have the same names of weights; what is checked is the whole.

Three families are told apart by their heads: CATNet (RetinaNet), CAT R-CNN and CAT Mask R-CNN.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from perception.engine.checkpoint import state_dict_of
from perception.engine.convert import Conversion, State, count_numbers, require_complete, require_weight, stated_classes
from perception.engine.convert_shapes import Shapes, is_known, resnet_shapes, shapes_of, with_biases
from perception.engine.errors import UserError

from .convolution import ConvNorm
from .dense_fpn import DenseFPN
from .hroie import make_gates
from .scp import SCP, ContextAggregation

MODEL = "CATNet"


def to_perception(checkpoint: Mapping[str, Any]) -> Conversion:
    """Converts the authors' file.

    Raises:
        UserError: the file does not hold one of the three detectors, or not all of it.
    """
    return _checked(checkpoint)


def to_authors(checkpoint: Mapping[str, Any]) -> Conversion:
    """Converts a checkpoint of ours to what the authors' code loads.

    Raises:
        UserError: the file does not hold one of the three detectors, or not all of it.
    """
    return _checked(checkpoint)


def _checked(checkpoint: Mapping[str, Any]) -> Conversion:
    state = state_dict_of(checkpoint)
    if not any(key.startswith("neck.0.top_down_atts.") for key in state):
        raise UserError(f"this file does not hold a {MODEL} model: no weight of it is part of a DenseFPN")
    if "bbox_head.retina_cls.weight" in state:
        description, expected = "CATNet (RetinaNet)", _retina_shapes(state)
    elif any(key.startswith("roi_head.mask_head.") for key in state):
        description, expected = "CAT Mask R-CNN", _box_shapes(state) | _mask_shapes(state)
    else:
        description, expected = "CAT R-CNN", _box_shapes(state)
    expected |= resnet_shapes(state, MODEL) | _neck_shapes(state)
    require_complete(state, expected, MODEL)
    known = {key: value for key, value in state.items() if is_known(key, expected)}
    result: dict[str, Any] = {"state_dict": known}
    named = stated_classes(checkpoint.get("meta", {}))
    if named:
        result["meta"] = {"dataset_meta": named}
    unmatched = [key for key in state if key not in known]
    return Conversion(result, unmatched, len(known), description, _num_classes(state))


def _num_classes(state: State) -> int:
    if "bbox_head.retina_cls.weight" in state:
        anchors = len(state["bbox_head.retina_reg.weight"]) // 4
        return len(state["bbox_head.retina_cls.weight"]) // anchors
    return len(state["roi_head.bbox_head.fc_cls.weight"]) - 1  # less the background


# ------------------------------------------------------------------ shapes of models of the sizes that weights show


def _neck_shapes(state: State) -> Shapes:
    fpn, scp = "neck.0.", "neck.1."
    used = count_numbers(state, r"neck\.0\.lateral_convs\.(\d+)\..+")
    laterals = [_shape(state, f"{fpn}lateral_convs.{i}.conv.weight") for i in range(used)]
    levels = used + count_numbers(state, r"neck\.0\.extra_convs\.(\d+)\..+")
    inner, channels = _shape(state, f"{fpn}stages.0.0.0.conv.weight")[:2]
    norm = nn.BatchNorm2d if f"{fpn}lateral_convs.0.bn.weight" in state else None
    gathered = _shape(state, f"{scp}blocks.0.v.conv.weight")[0]
    with torch.device("meta"):
        necks = (
            DenseFPN(
                [shape[1] for shape in laterals],
                channels,
                levels,
                stack_times=count_numbers(state, r"neck\.0\.stages\.(\d+)\..+"),
                reduction=channels // inner,
                conv_block=partial(ConvNorm, norm=norm),
            ),
            SCP(channels, levels, partial(ContextAggregation, reduction=channels // gathered)),
        )
    return {key: shape for i, neck in enumerate(necks) for key, shape in shapes_of(neck, f"neck.{i}.").items()}


def _box_shapes(state: State) -> Shapes:
    """Of the region proposals and the box head."""
    rpn, box = "rpn_head", "roi_head.bbox_head"
    hidden, channels = _shape(state, f"{rpn}.rpn_conv.weight")[:2]
    anchors = _shape(state, f"{rpn}.rpn_cls.weight")[0]
    wide, pooled = _shape(state, f"{box}.shared_fcs.0.weight")
    classes = _shape(state, f"{box}.fc_cls.weight")[0] - 1
    layers = {
        f"{rpn}.rpn_conv": (hidden, channels, 3, 3),
        f"{rpn}.rpn_cls": (anchors, hidden, 1, 1),
        f"{rpn}.rpn_reg": (4 * anchors, hidden, 1, 1),
        f"{box}.shared_fcs.0": (wide, pooled),
        f"{box}.shared_fcs.1": (wide, wide),
        f"{box}.fc_cls": (classes + 1, wide),
        f"{box}.fc_reg": (4 * classes, wide),
    }
    return with_biases(layers) | _extractor_shapes(state, "roi_head.bbox_roi_extractor.", channels)


def _mask_shapes(state: State) -> Shapes:
    """Of the mask head; its last layer has a row for each class of the box head."""
    mask = "roi_head.mask_head"
    channels = _shape(state, "rpn_head.rpn_conv.weight")[1]
    wide = _shape(state, f"{mask}.upsample.weight")[1]
    depth = count_numbers(state, r"roi_head\.mask_head\.convs\.(\d+)\..+")
    layers: Shapes = {f"{mask}.convs.{i}.conv": (wide, wide if i else channels, 3, 3) for i in range(depth)}
    layers[f"{mask}.upsample"] = (wide if depth else channels, wide, 2, 2)
    layers[f"{mask}.conv_logits"] = (_num_classes(state), wide, 1, 1)
    shapes = with_biases(layers)
    shapes[f"{mask}.upsample.bias"] = (wide,)  # of a transposed convolution
    return shapes | _extractor_shapes(state, "roi_head.mask_roi_extractor.", channels)


def _retina_shapes(state: State) -> Shapes:
    head = "bbox_head"
    rows = _shape(state, f"{head}.retina_reg.weight")[0]
    outputs, hidden = _shape(state, f"{head}.retina_cls.weight")[:2]
    channels = _shape(state, "neck.0.lateral_convs.0.conv.weight")[0]
    layers: Shapes = {f"{head}.retina_cls": (outputs, hidden, 3, 3), f"{head}.retina_reg": (rows, hidden, 3, 3)}
    for branch in ("cls_convs", "reg_convs"):
        for i in range(count_numbers(state, r"bbox_head\.(?:cls|reg)_convs\.(\d+)\..+")):
            layers[f"{head}.{branch}.{i}.conv"] = (hidden, hidden if i else channels, 3, 3)
    return with_biases(layers)


def _extractor_shapes(state: State, prefix: str, channels: int) -> Shapes:
    """A gate for each map of the backbone: further levels of the pyramid are none of the regions'."""
    with torch.device("meta"):
        gates = make_gates(channels, count_numbers(state, r"neck\.0\.lateral_convs\.(\d+)\..+"))
    return shapes_of(gates, f"{prefix}atts.")


def _shape(state: State, key: str) -> tuple[int, ...]:
    return tuple(require_weight(state, key, MODEL).shape)
