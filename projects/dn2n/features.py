"""IBRNet's feature network: a ResNet-34 without its last stage, and a decoder back to a quarter of the image's size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MIN_SIDE = 17
"""Smallest image side: below it, reflection would need pixels that the innermost maps do not have."""


def _norm(channels: int) -> nn.InstanceNorm2d:
    return nn.InstanceNorm2d(channels, affine=True, track_running_stats=False)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, *, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=bias, padding_mode="reflect")


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, outputs, 3, stride), _norm(outputs)
        self.conv2, self.bn2 = _conv(outputs, outputs, 3), _norm(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(_conv(inputs, outputs, 1, stride), _norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(V, C, h, w) to (V, outputs, h / stride, w / stride), sizes rounded up."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + shortcut)


class ConvNormELU(nn.Module):
    """The decoder's convolution."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv, self.bn = _conv(inputs, outputs, 3, bias=True), _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(V, inputs, h, w) to (V, outputs, h, w)"""
        return F.elu(self.bn(self.conv(x)))


class UpConv(nn.Module):
    """Twice the size, then a convolution."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = ConvNormELU(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(V, inputs, h, w) to (V, outputs, 2 h, 2 w)"""
        return self.conv(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))


class ResUNet(nn.Module):
    """Features of each image by itself: norms take the statistics of one image, in evaluation as well.

    Parameters have the names of IBRNet's released ``feature_net``.

    Args:
        coarse_out_ch, fine_out_ch: channels for the coarse and the fine network.
        widths: channels of the three stages; the stem has as many as the first.
        blocks: number of blocks of the three stages.

    Source: Wang et al., IBRNet, CVPR 2021, and its released code.
    """

    def __init__(
        self,
        coarse_out_ch: int = 32,
        fine_out_ch: int = 32,
        widths: Sequence[int] = (64, 128, 256),
        blocks: Sequence[int] = (3, 4, 6),
    ):
        super().__init__()
        self.coarse_out_ch, self.fine_out_ch = coarse_out_ch, fine_out_ch
        first, second, third = widths
        out = coarse_out_ch + fine_out_ch
        self.conv1, self.bn1 = _conv(3, first, 7, 2), _norm(first)
        self.layer1 = _stage(first, first, blocks[0])
        self.layer2 = _stage(first, second, blocks[1])
        self.layer3 = _stage(second, third, blocks[2])
        self.upconv3 = UpConv(third, second)
        self.iconv3 = ConvNormELU(2 * second, second)
        self.upconv2 = UpConv(second, first)
        self.iconv2 = ConvNormELU(2 * first, out)
        self.out_conv = nn.Conv2d(out, out, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Coarse and fine features (V, C, h, w), about a quarter of the images' size, of images (V, 3, H, W) in [0, 1].

        Sides need not be multiples of anything. A 60 x 76 image gives 16 x 20 features.

        Raises:
            ValueError: a side is below ``MIN_SIDE``.
        """
        if min(images.shape[-2:]) < MIN_SIDE:
            raise ValueError(
                f"images of {images.shape[-1]} x {images.shape[-2]} pixels are too small for the feature network, "
                f"which needs at least {MIN_SIDE} on each side"
            )
        stem = F.relu(self.bn1(self.conv1(images)))
        first = self.layer1(stem)
        second = self.layer2(first)
        x = self.upconv3(self.layer3(second))
        x = self.iconv3(_join(x, second))
        x = self.upconv2(x)
        x = self.out_conv(self.iconv2(_join(x, first)))
        return x[:, : self.coarse_out_ch], x[:, self.coarse_out_ch :]


def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(inputs, outputs, 2), *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


def _join(x: Tensor, skipped: Tensor) -> Tensor:
    """(V, C + D, h, w): x (V, C, h, w), and ``skipped`` (V, D, ., .) with a border of zeros that gives it that size."""
    down, right = x.shape[2] - skipped.shape[2], x.shape[3] - skipped.shape[3]
    padded = F.pad(skipped, (right // 2, right - right // 2, down // 2, down - down // 2))
    return torch.cat([x, padded], 1)
