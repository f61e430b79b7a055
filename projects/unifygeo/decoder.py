"""Where in a satellite tile a panorama was taken: matching at four scales on the way to a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d

from perception.layers.precision import at_least_float32

from .encoder import EPS


@dataclass
class Location:
    """What the decoder finds, for B pairs.

    Attributes:
        logits: (B, H * W) of the heat map, row by row.
        scores: cosine of every cell with the panorama's descriptor, (B, 1, H_l, W_l) from the coarsest level on.
    """

    logits: Tensor
    scores: list[Tensor]

    def heatmap(self, size: tuple[int, int]) -> Tensor:
        """Probabilities (B, 1, *size) that sum to 1, at least in float32: half types would underflow."""
        return at_least_float32(self.logits).softmax(-1).view(-1, 1, *size)


class GroundDescriptor(nn.Module):
    """A panorama's volume to one vector ordered by azimuth: columns outermost, then channels.

    Args:
        in_channels: of the volume.
        channels: kept in each column.
        rows: of the volume; they are summed with learnt weights.
    """

    def __init__(self, in_channels: int, channels: int, rows: int):
        super().__init__()
        self.project = nn.Conv2d(in_channels, channels, 1)
        self.pool_rows = nn.Conv2d(rows, 1, 1)

    def forward(self, volume: Tensor) -> Tensor:
        """(B, in_channels, rows, columns) to (B, columns * channels)."""
        rows = self.project(volume).permute(0, 2, 3, 1)  # (B, rows, columns, channels)
        return self.pool_rows(rows).flatten(1)


class PyramidDecoder(nn.Module):
    """Four levels of matching and upsampling, then the heat map.

    Args:
        channels: of the satellite's maps, from the local volume at stride 32 to the encoder's first stage at stride 4.
        ground_channels: c_l, of the panorama's descriptor in each column and level.
        ground_size: rows and columns of the panorama's volume.
        ground_in_channels: of that volume; by default as many as the satellite's.
        head_channels: of the two upsamplings after the last level.
        last_channels: before the heat map.
        batch_norm: in the fusions and before the heat map, as published. Without, their convolutions have biases; the
            upsampling after the last level keeps its own.
        match_norm: layer norms of descriptors and maps before they are matched, as published.

    Raises:
        ValueError: descriptors would not be as long as the maps are deep, or settings do not fit together.
    """

    def __init__(
        self,
        channels: Sequence[int] = (768, 384, 192, 96),
        ground_channels: Sequence[int] = (32, 16, 8, 4),
        ground_size: Sequence[int] = (12, 24),
        ground_in_channels: int | None = None,
        head_channels: Sequence[int] = (48, 24),
        last_channels: int = 8,
        batch_norm: bool = True,
        match_norm: bool = True,
    ):
        super().__init__()
        rows, columns = ground_size
        if len(ground_channels) != len(channels):
            raise ValueError(f"{len(channels)} levels need as many ground_channels, got {len(ground_channels)}")
        if len(head_channels) != 2:
            raise ValueError(f"head_channels needs two numbers, got {len(head_channels)}")
        for depth, kept in zip(channels, ground_channels):
            if kept * columns != depth:
                raise ValueError(f"{columns} columns of {kept} channels do not match maps of {depth} channels")
        self.channels, self.ground_size = tuple(channels), (rows, columns)
        volume = ground_in_channels or channels[0]
        self.descriptors = nn.ModuleList(GroundDescriptor(volume, kept, rows) for kept in ground_channels)
        self.descriptor_norms, self.map_norms = (
            nn.ModuleList(kind(depth, eps=EPS) if match_norm else nn.Identity() for depth in channels)
            for kind in (nn.LayerNorm, LayerNorm2d)
        )
        self.upsamples = nn.ModuleList(
            nn.ConvTranspose2d(coarse + 1, fine, 2, 2) for coarse, fine in pairwise(channels)
        )
        self.fusions = nn.ModuleList(_double_conv(2 * fine, fine, fine, batch_norm) for fine in channels[1:])
        self.head_upsample = nn.Sequential(
            nn.ConvTranspose2d(channels[-1] + 1, head_channels[0], 2, 2),
            nn.BatchNorm2d(head_channels[0], eps=EPS),
            nn.ReLU(),
            nn.ConvTranspose2d(head_channels[0], head_channels[1], 2, 2),
        )
        self.head = _double_conv(head_channels[1], last_channels, 1, batch_norm)
        self.apply(_init)

    def forward(self, ground_volume: Tensor, pyramid: Sequence[Tensor]) -> Location:
        """Locates panoramas in their tiles.

        Args:
            ground_volume: (B, C, rows, columns).
            pyramid: maps (B, C_l, H_l, W_l) of the tiles, each twice as large as the one before.

        Raises:
            ValueError: the volume has another size than the weights, or there is another number of maps, or
                their sides do not double.
        """
        self._require_size(ground_volume)
        if len(pyramid) != len(self.descriptors):
            raise ValueError(f"the decoder takes maps of {len(self.descriptors)} levels, got {len(pyramid)}")
        sides = [tuple(features.shape[-2:]) for features in pyramid]
        if any((2 * coarse[0], 2 * coarse[1]) != fine for coarse, fine in pairwise(sides)):
            raise ValueError(
                f"the sides of the tile's maps must double from level to level, got {sides}; tiles have sides that are "
                "multiples of 32"
            )
        scores = []
        features = pyramid[0]
        for level in range(len(self.descriptors)):
            scores.append(self._score(level, ground_volume, features))
            # Unit length for each cell; what is matched is the normalised map, what goes on is not.
            joined = torch.cat([scores[-1], F.normalize(features, dim=1)], 1)
            if level < len(self.upsamples):
                upsampled = self.upsamples[level](joined)
                features = self.fusions[level](torch.cat([upsampled, pyramid[level + 1]], 1))
        return Location(self.head(self.head_upsample(joined)).flatten(1), scores)

    def describe(self, ground_volume: Tensor, level: int = 0) -> Tensor:
        """Normed descriptors (B, C_l) of panoramas; those of level 0 re-rank."""
        self._require_size(ground_volume)
        return self.descriptor_norms[level](self.descriptors[level](ground_volume))

    def normed_map(self, features: Tensor, level: int = 0) -> Tensor:
        """Satellite maps (B, C_l, H, W) as they are matched; those of level 0 re-rank."""
        return self.map_norms[level](features)

    def _score(self, level: int, ground_volume: Tensor, features: Tensor) -> Tensor:
        descriptor = F.normalize(self.describe(ground_volume, level), dim=1)
        normed = F.normalize(self.normed_map(features, level), dim=1)
        return torch.einsum("bc,bchw->bhw", descriptor, normed)[:, None]

    def _require_size(self, ground_volume: Tensor) -> None:
        if tuple(ground_volume.shape[-2:]) != self.ground_size:
            expected, got = " x ".join(map(str, self.ground_size)), " x ".join(map(str, ground_volume.shape[-2:]))
            raise ValueError(f"the panorama's volume must have {expected} cells for these weights, got {got}")


def _double_conv(in_channels: int, channels: int, out_channels: int, batch_norm: bool) -> nn.Sequential:
    norm = [nn.BatchNorm2d(channels, eps=EPS)] if batch_norm else []
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=1, bias=not batch_norm),
        *norm,
        nn.ReLU(),
        nn.Conv2d(channels, out_channels, 3, padding=1),
    )


def _init(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.xavier_uniform_(module.weight)
    elif isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):  # LayerNorm2d among them
        nn.init.normal_(module.weight, 1.0, 0.02)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
