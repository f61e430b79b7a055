"""FreqFusion between the levels of any pyramid of feature maps, from the deepest to the shallowest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .fusion import FreqFusion

MODES = ("add", "join")


def add_top_down(maps: Sequence[Tensor], fusions: Sequence[FreqFusion]) -> list[Tensor]:
    """Fuse each level with what lies above it by adding, as a feature pyramid does.

    Args:
        maps: from shallow to deep, each (B, C, H, W) and twice as large as the next.
        fusions: number i fuses level i + 1 into level i.

    Returns:
        The fused maps, from shallow to deep; the deepest is as it was.
    """
    fused = list(maps)
    for level in range(len(fused) - 1, 0, -1):
        _, shallow, deep = fusions[level - 1](fused[level - 1], fused[level])
        fused[level - 1] = shallow + deep
    return fused


def join_top_down(maps: Sequence[Tensor], fusions: Sequence[FreqFusion]) -> Tensor:
    """Fuse all levels into one map by joining channels, as the authors' SegNeXt head does.

    Channels are joined group by group where a fusion resamples in groups: the first group of the shallow map, the first
    of the deep one, the second of the shallow map, and so on.

    Args:
        maps: from shallow to deep, each (B, C_i, H_i, W_i) and twice as large as the next.
        fusions: from deep to shallow; the deep map of each but the first is what the one before made.

    Returns:
        (B, sum of C_i, H_0, W_0).
    """
    joined = maps[-1]
    for shallow, fusion in zip(reversed(maps[:-1]), fusions):
        _, shallow, deep = fusion(shallow, joined)
        groups = fusion.dysampler.groups if fusion.feature_resample else 1
        parts = [x.unflatten(1, (groups, -1)) for x in (shallow, deep)]
        joined = torch.cat(parts, 2).flatten(1, 2)
    return joined


class FreqFusionPyramid(nn.Module):
    """The same as a module, for a neck or head of one's own.

    Args:
        in_channels: of the maps, from shallow to deep. To add them, all must be equal.
        mode: "add" returns a map per level, "join" one map of all channels at the size of the shallowest.
        compress_ratio: the channels of both maps of a fusion, divided by this, are what kernels are predicted from.
        **fusion: settings of :class:`FreqFusion`.

    Raises:
        ValueError: an unknown mode, or maps that cannot be added.
    """

    def __init__(self, in_channels: Sequence[int], mode: str = "add", compress_ratio: int = 8, **fusion):
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
        if mode == "add" and len(set(in_channels)) != 1:
            raise ValueError(f"maps that are added must have equal channels, got {list(in_channels)}")
        self.mode = mode
        make = adding_fusions if mode == "add" else joining_fusions
        self.fusions = make(in_channels, compress_ratio, **fusion)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor] | Tensor:
        """Fused maps from shallow to deep ("add"), or one map ("join")."""
        return (add_top_down if self.mode == "add" else join_top_down)(maps, self.fusions)


def adding_fusions(in_channels: Sequence[int], compress_ratio: int, **fusion) -> nn.ModuleList:
    """Fusions for :func:`add_top_down`."""
    channels = in_channels[0]
    compressed = 2 * channels // compress_ratio
    return nn.ModuleList(FreqFusion(channels, channels, compressed, **fusion) for _ in in_channels[1:])


def joining_fusions(in_channels: Sequence[int], compress_ratio: int, **fusion) -> nn.ModuleList:
    """Fusions for :func:`join_top_down`."""
    fusions, deep = nn.ModuleList(), in_channels[-1]
    for shallow in reversed(in_channels[:-1]):
        fusions.append(FreqFusion(shallow, deep, (deep + shallow) // compress_ratio, **fusion))
        deep += shallow
    return fusions
