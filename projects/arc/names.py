"""Names of ARC's weights in the authors' files (OBBDetection layout) and here, and starts from plain ResNets."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from perception.engine.convert import Rename, State

KERNEL_NUMBER = 4  # of the published models
_ANGLE_ROW = 4  # of the five numbers that the box head regresses
_REPLACED = re.compile(r"layer[234]\.\d+\.conv2\.weight").fullmatch


def backbone_rules(prefix: str = "") -> list[Rename]:
    """Weights of the backbone, whose keys start with ``prefix``."""
    routing = f"{prefix}layer{{i}}.{{j}}.conv2"
    return [
        Rename(f"{routing}.rounting_func.norm.norm.{{rest}}", f"{routing}.routing.norm.{{rest}}"),
        Rename(f"{routing}.rounting_func.{{rest}}", f"{routing}.routing.{{rest}}"),
        *_same(f"{prefix}layer{{i}}.{{j}}", f"{prefix}conv1", f"{prefix}bn1"),
    ]


def classifier_rules() -> list[Rename]:
    """A backbone without a prefix, and the classifier that it was trained with on ImageNet."""
    return [*backbone_rules(), *_same("fc")]


def detector_rules() -> list[Rename]:
    """Oriented R-CNN, the detector that the authors published."""
    head = "roi_head.bbox_head.fc_reg.{rest}"
    return [
        *backbone_rules("backbone."),
        *_same("neck.lateral_convs", "neck.fpn_convs", "rpn_head.rpn_conv", "rpn_head.rpn_cls", "rpn_head.rpn_reg"),
        *_same("roi_head.bbox_head.shared_fcs", "roi_head.bbox_head.fc_cls"),
        Rename(head, head, _negate_angle, _negate_angle),
    ]


def is_plain_resnet(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the weights of a ResNet with bottlenecks and ordinary convolutions."""
    kernels = [value for key, value in state.items() if _REPLACED(key)]
    return "layer2.0.conv3.weight" in state and all(kernel.dim() == 4 for kernel in kernels)


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


def _same(*prefixes: str) -> list[Rename]:
    return [Rename(f"{prefix}.{{rest}}", f"{prefix}.{{rest}}") for prefix in prefixes]


def _negate_angle(value: Tensor) -> Tensor:
    """Their angles turn counter-clockwise, ours clockwise."""
    value = value.clone()
    value[_ANGLE_ROW::5] *= -1
    return value
