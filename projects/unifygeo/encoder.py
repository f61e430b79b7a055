"""ConvNeXt's first three stages, and the task heads that add part of the fourth."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torchvision.models.convnext import CNBlock, LayerNorm2d

EPS = 1e-6
_LAYER_SCALE = 1e-6


def block(channels: int) -> CNBlock:
    """A ConvNeXt block without stochastic depth: (B, channels, H, W) to the same."""
    return CNBlock(channels, layer_scale=_LAYER_SCALE, stochastic_depth_prob=0.0)


def downsample(in_channels: int, out_channels: int) -> nn.Sequential:
    """Channel norm and a convolution 2 x 2 that halves the sides."""
    return nn.Sequential(LayerNorm2d(in_channels, eps=EPS), nn.Conv2d(in_channels, out_channels, 2, 2))


class ConvNeXtEncoder(nn.Module):
    """ConvNeXt-Tiny without its last stage, as multi-scale features.

    Args:
        channels: of the stages.
        depths: blocks of the stages.
        output_norm: a channel norm on each output (the published weights have none).

    Raises:
        ValueError: another number of depths than of stages.
    """

    def __init__(
        self,
        channels: Sequence[int] = (96, 192, 384),
        depths: Sequence[int] = (3, 3, 9),
        output_norm: bool = False,
    ):
        super().__init__()
        if len(depths) != len(channels):
            raise ValueError(f"{len(channels)} stages need as many depths, got {len(depths)}")
        self.stem = nn.Sequential(nn.Conv2d(3, channels[0], 4, 4), LayerNorm2d(channels[0], eps=EPS))
        self.downsamples = nn.ModuleList(downsample(*pair) for pair in pairwise(channels))
        self.stages = nn.ModuleList(
            nn.Sequential(*(block(width) for _ in range(depth))) for width, depth in zip(channels, depths)
        )
        self.norms = nn.ModuleList(LayerNorm2d(width, eps=EPS) if output_norm else nn.Identity() for width in channels)
        init_convnext(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps (B, C_i, H / s, W / s) at strides s = 4, 8, 16 of images (B, 3, H, W)."""
        features, outputs = self.stem(images), []
        for i, stage in enumerate(self.stages):
            features = stage(self.downsamples[i - 1](features) if i else features)
            outputs.append(self.norms[i](features))
        return outputs


class FeatureHead(nn.Module):
    """Halves an encoder's last map and adds one block: the start of ConvNeXt's fourth stage.

    Args:
        in_channels: of the encoder's last stage.
        channels: of the output.
    """

    def __init__(self, in_channels: int = 384, channels: int = 768):
        super().__init__()
        self.downsample = downsample(in_channels, channels)
        self.block = block(channels)
        init_convnext(self)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, channels, H / 2, W / 2)."""
        return self.block(self.downsample(features))


def init_convnext(module: nn.Module) -> None:
    """ConvNeXt's own start: truncated normal weights of deviation 0.02, zero biases."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
