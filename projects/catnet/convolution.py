"""The convolution with or without a norm that all parts are made of."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn


class ConvNorm(nn.Module):
    """A convolution and, if there is one, its norm; no activation. Without a norm the convolution has a bias.

    Its weights have the names that mmcv's ``ConvModule`` gives them: ``conv.*`` and ``bn.*``.

    Args:
        in_channels, out_channels, kernel_size, stride, padding: of the convolution.
        norm: makes the norm for a number of channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        norm: Callable[[int], nn.Module] | None = None,
    ):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=norm is None)
        self.bn = norm(out_channels) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x if self.bn is None else self.bn(x)


def init_uniform(module: nn.Module) -> None:
    """Starts all convolutions of a module with weights from U(-b, b), b = sqrt(3 / fan-in), and biases of 0.

    Caffe2's "Xavier", as in the released detectors.
    """
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            bound = math.sqrt(3 / conv.weight[0].numel())
            nn.init.uniform_(conv.weight, -bound, bound)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
