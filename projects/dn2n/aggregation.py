"""IBRNet's aggregation network: from what the source views show at the samples of rays to their colours and densities.

Parameters have the names of IBRNet's released ``net_coarse`` and ``net_fine``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 32  # of a view's features after the first layers
GEOMETRY = 16  # of a sample's features along the ray
HEADS = 4


def mean_and_variance(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and variance (R, S, 1, C) over the views of x (R, S, V, C); weights (R, S, V, 1) sum to 1."""
    mean = (x * weight).sum(2, keepdim=True)
    return mean, (weight * (x - mean).square()).sum(2, keepdim=True)


def position_table(samples: int, width: int = GEOMETRY) -> Tensor:
    """Sinusoids (samples, width) of the numbers of samples: sine in even columns, cosine in odd ones."""
    position = torch.arange(samples, dtype=torch.float64)[:, None]
    column = torch.arange(width)
    angle = position / 10000 ** (2 * torch.div(column, 2, rounding_mode="floor").double() / width)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).float()


class MultiHeadAttention(nn.Module):
    """Attention of the samples of a ray to each other, with a residual and a norm."""

    def __init__(self, heads: int = HEADS, width: int = GEOMETRY):
        super().__init__()
        self.heads, per_head = heads, width // heads
        self.temperature = per_head**0.5
        self.w_qs, self.w_ks, self.w_vs, self.fc = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.layer_norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(R, S, width) to the same.

        Args:
            x: features of samples.
            mask: bool (R, S, 1). Samples where it is false attend to all samples alike: it masks queries, as released.
        """
        query, key, value = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (R, heads, S, width / heads)
            for project in (self.w_qs, self.w_ks, self.w_vs)
        )
        scores = (query / self.temperature) @ key.transpose(2, 3)  # (R, heads, S, S)
        attention = scores.masked_fill(~mask[:, None], -1e9).softmax(-1)
        found = (attention @ value).transpose(1, 2).flatten(-2)  # (R, S, width)
        return self.layer_norm(self.fc(found) + x)


class IBRNet(nn.Module):
    """Colour and density of samples from what V source views show there; any number of views.

    Args:
        in_feat_ch: channels of the feature maps.
        n_samples: samples of a ray. Their position table is no parameter, but the density of a sample has no length:
            a network is tied to the number it was trained with.
        anti_alias_pooling: weigh views by their directions, with the learnt sharpness ``s``; otherwise all alike.

    Source: Wang et al., IBRNet, CVPR 2021, section 3.2, and its released code.
    """

    def __init__(self, in_feat_ch: int = 32, n_samples: int = 64, anti_alias_pooling: bool = True):
        super().__init__()
        self.in_feat_ch, self.n_samples, self.anti_alias_pooling = in_feat_ch, n_samples, anti_alias_pooling
        channels = in_feat_ch + 3
        if anti_alias_pooling:
            self.s = nn.Parameter(torch.tensor(0.2))
        self.ray_dir_fc = nn.Sequential(nn.Linear(4, 16), nn.ELU(), nn.Linear(16, channels), nn.ELU())
        self.base_fc = nn.Sequential(nn.Linear(3 * channels, 64), nn.ELU(), nn.Linear(64, WIDTH), nn.ELU())
        self.vis_fc = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ELU(), nn.Linear(WIDTH, WIDTH + 1), nn.ELU())
        self.vis_fc2 = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ELU(), nn.Linear(WIDTH, 1), nn.Sigmoid())
        self.geometry_fc = nn.Sequential(nn.Linear(2 * WIDTH + 1, 64), nn.ELU(), nn.Linear(64, GEOMETRY), nn.ELU())
        self.ray_attention = MultiHeadAttention()
        self.out_geometry_fc = nn.Sequential(nn.Linear(GEOMETRY, 16), nn.ELU(), nn.Linear(16, 1), nn.ReLU())
        self.rgb_fc = nn.Sequential(nn.Linear(WIDTH + 1 + 4, 16), nn.ELU(), nn.Linear(16, 8), nn.ELU(), nn.Linear(8, 1))
        self.register_buffer("pos_encoding", position_table(n_samples), persistent=False)
        for part in (self.base_fc, self.vis_fc2, self.vis_fc, self.geometry_fc, self.rgb_fc):
            for layer in part:
                if isinstance(layer, nn.Linear):
                    nn.init.kaiming_normal_(layer.weight)
                    nn.init.zeros_(layer.bias)

    def set_samples(self, n_samples: int) -> None:
        """Make the position table anew for another number of samples."""
        self.n_samples = n_samples
        self.pos_encoding = position_table(n_samples).to(self.pos_encoding)

    def forward(self, rgb_feat: Tensor, ray_diff: Tensor, mask: Tensor) -> Tensor:
        """Colour and density (R, S, 4) of samples.

        Args:
            rgb_feat: (R, S, V, 3 + in_feat_ch) colours and features that the views show.
            ray_diff: (R, S, V, 4) see :func:`~projects.dn2n.projection.ray_differences`.
            mask: (R, S, V, 1) 1 where a view sees the sample.

        Raises:
            ValueError: the rays have another number of samples than the network.
        """
        if rgb_feat.shape[1] != self.n_samples:
            raise ValueError(f"rays of {rgb_feat.shape[1]} samples for a network of {self.n_samples}")
        views = rgb_feat.shape[2]
        colours = rgb_feat[..., :3]
        f = rgb_feat + self.ray_dir_fc(ray_diff)
        weight = self._pooling(ray_diff, mask)
        mean, variance = mean_and_variance(f, weight)
        x = self.base_fc(torch.cat([torch.cat([mean, variance], -1).expand(-1, -1, views, -1), f], -1))
        residual, visible = self.vis_fc(x * weight).split([WIDTH, 1], -1)
        x = x + residual
        visible = self.vis_fc2(x * (visible.sigmoid() * mask)) * mask
        weight = visible / (visible.sum(2, keepdim=True) + 1e-8)

        mean, variance = mean_and_variance(x, weight)
        g = self.geometry_fc(torch.cat([mean[:, :, 0], variance[:, :, 0], weight.mean(2)], -1))  # (R, S, 16)
        seen_by = mask.sum(2)  # (R, S, 1)
        g = self.ray_attention(g + self.pos_encoding, seen_by > 1)
        sigma = self.out_geometry_fc(g).masked_fill(seen_by < 1, 0.0)

        scores = self.rgb_fc(torch.cat([x, visible, ray_diff], -1)).masked_fill(mask == 0, -1e9)
        return torch.cat([(F.softmax(scores, 2) * colours).sum(2), sigma], -1)

    def _pooling(self, ray_diff: Tensor, mask: Tensor) -> Tensor:
        """Weights (R, S, V, 1) of the views, which sum to 1 where any view counts."""
        weight = mask
        if self.anti_alias_pooling:
            closeness = torch.exp(self.s.abs() * (ray_diff[..., 3:] - 1))
            weight = (closeness - closeness.min(2, keepdim=True)[0]) * mask
        return weight / (weight.sum(2, keepdim=True) + 1e-8)
