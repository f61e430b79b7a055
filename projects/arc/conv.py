"""The adaptive rotated convolution (paper section 3.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .rotation import combine_kernels, kernel_storage
from .routing import RoutingFunction


class AdaptiveRotatedConv2d(nn.Module):
    """A 3x3 convolution whose kernel is, for each sample, a gated sum of n rotated kernels.

    Args:
        in_channels: of the map.
        out_channels: of the result.
        kernel_size: 3.
        stride: as in :class:`torch.nn.Conv2d`.
        padding: likewise.
        dilation: likewise.
        groups: likewise.
        kernel_number: n.
        dropout_rate: of the routing function.
        proportion: bound of its angles, in degrees.

    Raises:
        ValueError: the kernel size is not 3, or the groups do not divide the channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...] = 3,
        stride: int | tuple[int, ...] = 1,
        padding: str | int | tuple[int, ...] = 1,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        kernel_number: int = 1,
        dropout_rate: float = 0.2,
        proportion: float = 40.0,
    ):
        super().__init__()
        if kernel_size not in (3, (3, 3)):
            raise ValueError(f"only 3x3 kernels can be rotated, got kernel_size={kernel_size}")
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"{groups} groups do not divide {in_channels} input and {out_channels} output channels")
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.weight = nn.Parameter(kernel_storage(kernel_number, out_channels, in_channels // groups))
        # On five dimensions: the fan is n C_in 9, as in the released code.
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.routing = RoutingFunction(in_channels, kernel_number, dropout_rate, proportion)

    def forward(self, x: Tensor) -> Tensor:
        """Result (B, C_out, H', W') for maps (B, C_in, H, W); sizes as those of an ordinary convolution."""
        alpha, theta = self.routing(x)
        batch = len(x)
        with torch.autocast(x.device.type, enabled=False):
            kernels = combine_kernels(self.weight, alpha, theta)
        kernels = kernels.flatten(0, 1).to(x.dtype)  # (B C_out, C_in / groups, 3, 3)
        if batch == 0:
            return F.conv2d(x, self.weight[0].to(x.dtype), None, self.stride, self.padding, self.dilation, self.groups)
        # Samples as groups of one convolution.
        joined = x.reshape(1, -1, *x.shape[2:])
        result = F.conv2d(joined, kernels, None, self.stride, self.padding, self.dilation, self.groups * batch)
        return result.reshape(batch, -1, *result.shape[2:])

    def extra_repr(self) -> str:
        number, out_channels, in_channels = self.weight.shape[:3]
        return (
            f"{in_channels * self.groups}, {out_channels}, kernel_number={number}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, groups={self.groups}"
        )
