"""Frames of a video as one bird's-eye view (arXiv 2211.10439, section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Convolution, norm, ReLU, convolution, norm, plus the input (or its own convolution and norm), ReLU."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if in_channels != channels:
            # Three by three, unlike that of a ResNet.
            conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + identity)


class ResNetFusion(nn.Module):
    """Joins the views of several frames by residual blocks and a linear map.

    Args:
        num_frames: T.
        embed_dims: C.
        inter_channels: width of the blocks; None: T times C.
        num_blocks: of them.
    """

    def __init__(
        self, num_frames: int, embed_dims: int, inter_channels: int | None = None, num_blocks: int = 3
    ) -> None:
        super().__init__()
        inter_channels = inter_channels or num_frames * embed_dims
        widths = [num_frames * embed_dims, *[inter_channels] * (num_blocks - 1)]
        self.layers = nn.Sequential(*(BasicBlock(width, inter_channels) for width in widths))
        self.layer_norm = nn.Sequential(nn.Linear(inter_channels, embed_dims), nn.LayerNorm(embed_dims))

    def forward(self, views: Sequence[Tensor], bev_size: tuple[int, int]) -> Tensor:
        """T views (B, cells, C), the oldest first -> (B, cells, C)."""
        maps = torch.cat([view.mT.unflatten(-1, bev_size) for view in views], 1)
        return self.layer_norm(self.layers(maps).flatten(2).mT)


def fill_missing(views: Sequence[Tensor | None], current: int, present: Tensor | None = None) -> list[Tensor]:
    """Gives frames that a scene does not have, at its beginning or end, the view of the nearest frame towards now.

    Args:
        views: T of (B, cells, C), the oldest first; None where no sample has the frame. That of now is there.
        current: number of the frame of now.
        present: (B, T) bool, which samples have which frame; None where all have those that are not None.

    Returns:
        T views. What fills in for another carries no gradient.
    """
    filled = list(views)
    towards_now = [(t, t + 1) for t in range(current - 1, -1, -1)] + [
        (t, t - 1) for t in range(current + 1, len(views))
    ]
    for t, nearer in towards_now:
        view, stand_in = filled[t], filled[nearer].detach()
        if view is None:
            filled[t] = stand_in
        elif present is not None:
            filled[t] = torch.where(present[:, t, None, None], view, stand_in)
    return filled
