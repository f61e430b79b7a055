"""ARC: two adaptive rotated convolutions of its backbone, one of them with a stride."""

import torch
from torch import nn

from projects.arc.conv import AdaptiveRotatedConv2d
from system_cases import Core


def core(large: bool) -> Core:
    width, side = (256, 128) if large else (16, 12)
    convs = nn.Sequential(
        AdaptiveRotatedConv2d(width, width, kernel_number=4, dropout_rate=0.0),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        AdaptiveRotatedConv2d(width, 2 * width, stride=2, kernel_number=4, dropout_rate=0.0),
    )
    return Core(convs, (torch.randn(2, width, side, side),), lambda module, x: module(x).square().mean())
