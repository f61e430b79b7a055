"""The backbone of P2B and BAT: PointNet++ with one radius a level (arXiv 2005.13888, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from perception.layers.point_sets import SetAbstraction

from .levels import PointLevels


class PointNet2SSG(nn.Module):
    """Set abstractions on ever fewer points.

    Args:
        in_channels: features C of a point besides its position.
        dims: channels of each level's layers.
        radii: of each level's balls, metres.
        num_samples: members of a ball.
        fps: sample the first level by furthest points. P2B takes the first points, which are in random order.
        normalize_xyz: positions in a ball in units of its radius.

    Shape:
        points (B, N, 3 + C) and the number of points of each level to :class:`.levels.PointLevels`.
    """

    def __init__(
        self,
        in_channels: int = 0,
        dims: Sequence[Sequence[int]] = ((64, 64, 128), (128, 128, 256), (256, 256, 256)),
        radii: Sequence[float] = (0.3, 0.5, 0.7),
        num_samples: int = 32,
        fps: bool = False,
        normalize_xyz: bool = False,
    ):
        super().__init__()
        widths = [in_channels, *(level[-1] for level in dims)]
        self.out_channels = widths[-1]
        self.SA_modules = nn.ModuleList(
            SetAbstraction(radius, num_samples, [width, *level], fps and number == 0, normalize_xyz)
            for number, (radius, width, level) in enumerate(zip(radii, widths, dims, strict=False))
        )

    def forward(self, points: Tensor, num_points: Sequence[int]) -> PointLevels:
        levels = PointLevels.of_input(points)
        for module, count in zip(self.SA_modules, num_points, strict=True):
            levels.append(*module(levels.xyz[-1], levels.features[-1], count))
        return levels
