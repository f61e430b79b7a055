"""The network: colour, density, and the variance of the colour at a point."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.radiance.encodings import frequency_bands, nerf_encoding

CHANNELS = 5
"""Of the output: three of colour and one of density before their activations, then the variance."""


class ActiveNeRFField(nn.Module):
    """NeRF's network with a head for the variance, which depends on the position alone. Parameters have the authors'
    names.

    Args:
        depth, width: layers of the trunk and their size (D, W).
        skips: layers behind which the encoded position is given to the network once more.
        multires, multires_views: octaves of the encodings of position and direction; -1 encodes nothing. Without
            ``use_viewdirs`` the latter means nothing.
        beta_min: smallest variance.
        use_viewdirs: whether colour depends on the direction. Without it, the released code reads all five numbers from
            one layer and leaves the variance without an activation; such a network renders, and knows no uncertainty.

    Source: section 3.2 of the paper, and the released code.
    """

    def __init__(
        self,
        depth: int = 8,
        width: int = 256,
        skips: tuple[int, ...] = (4,),
        multires: int = 10,
        multires_views: int = 4,
        beta_min: float = 0.01,
        use_viewdirs: bool = True,
    ):
        super().__init__()
        self.depth, self.width, self.skips = depth, width, tuple(skips)
        self.multires, self.multires_views = multires, multires_views
        self.beta_min, self.use_viewdirs = beta_min, use_viewdirs
        places, directions = encoded_channels(multires), encoded_channels(multires_views) if use_viewdirs else 0
        inputs = [places] + [width + places if layer in self.skips else width for layer in range(depth - 1)]
        self.pts_linears = nn.ModuleList([nn.Linear(channels, width) for channels in inputs])
        # The released code makes this layer in any case.
        self.views_linears = nn.ModuleList([nn.Linear(directions + width, width // 2)])
        if use_viewdirs:
            self.feature_linear = nn.Linear(width, width)
            self.alpha_linear = nn.Linear(width, 1)
            self.uncertainty_linear = nn.Linear(width, 1)
            self.rgb_linear = nn.Linear(width // 2, 3)
        else:
            self.output_linear = nn.Linear(width, CHANNELS)

    def settings(self) -> dict[str, int | float | bool | list[int]]:
        """The constructor's arguments, in plain numbers and lists."""
        return {
            "depth": self.depth,
            "width": self.width,
            "skips": list(self.skips),
            "multires": self.multires,
            "multires_views": self.multires_views,
            "beta_min": self.beta_min,
            "use_viewdirs": self.use_viewdirs,
        }

    def forward(self, points: Tensor, viewdirs: Tensor) -> Tensor:
        """Raw values of points.

        Args:
            points: (..., 3) places.
            viewdirs: (..., 3) directions of length 1.

        Returns:
            (..., 5): colour (3) before the sigmoid, density before the ReLU, and variance (colour units squared).
        """
        encoded = encode(points, self.multires)
        hidden = encoded
        for layer, linear in enumerate(self.pts_linears):
            hidden = F.relu(linear(hidden))
            if layer in self.skips:
                hidden = torch.cat([encoded, hidden], -1)
        if not self.use_viewdirs:
            return self.output_linear(hidden)
        variance = F.softplus(self.uncertainty_linear(hidden)) + self.beta_min
        density = self.alpha_linear(hidden)
        hidden = torch.cat([self.feature_linear(hidden), encode(viewdirs, self.multires_views)], -1)
        for linear in self.views_linears:
            hidden = F.relu(linear(hidden))
        return torch.cat([self.rgb_linear(hidden), density, variance], -1)


def encode(x: Tensor, octaves: int) -> Tensor:
    """Encode (..., 3) with sines and cosines of some frequencies: (..., 3 + 6 octaves); -1 gives ``x`` itself."""
    return x if octaves < 0 else nerf_encoding(x, frequency_bands(octaves).to(x))


def encoded_channels(octaves: int) -> int:
    """Channels of :func:`encode`."""
    return 3 if octaves < 0 else 3 + 6 * octaves
