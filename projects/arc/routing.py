"""The routing function: angles and gates of the kernels for each sample (paper section 3.2)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RoutingFunction(nn.Module):
    """Predicts n gates in (0, 1) and n angles from a feature map.

    Args:
        channels: C of the map.
        kernel_number: n.
        dropout_rate: of the pooled features, while training.
        proportion: bound of the angles, in degrees. The closed form of the rotation holds up to 45.

    Raises:
        ValueError: the bound is not between 0 and 45 degrees.
    """

    def __init__(self, channels: int, kernel_number: int, dropout_rate: float = 0.2, proportion: float = 40.0):
        super().__init__()
        if not 0 < proportion <= 45:
            raise ValueError(f"proportion must lie between 0 and 45 degrees, got {proportion}")
        self.max_angle = math.radians(proportion)
        self.dwc = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = nn.LayerNorm(channels)
        self.dropout1 = nn.Dropout(dropout_rate)
        self.fc_alpha = nn.Linear(channels, kernel_number)
        self.dropout2 = nn.Dropout(dropout_rate)
        self.fc_theta = nn.Linear(channels, kernel_number, bias=False)
        for layer in (self.dwc, self.fc_alpha, self.fc_theta):
            nn.init.trunc_normal_(layer.weight, std=0.02)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gates (B, n) and angles in radians (B, n) for maps (B, C, H, W).

        Both are float32 where the map is half precision.
        """
        if x.device.type == "cpu":
            x = x.contiguous(memory_format=torch.channels_last)  # halves the time of what follows
        y = self.dwc(x).permute(0, 2, 3, 1)  # (B, H, W, C), in which order it is normalised, rectified and averaged
        pooled = F.relu(self.norm(y)).mean((1, 2))
        with torch.autocast(x.device.type, enabled=False):
            pooled = pooled.to(torch.promote_types(pooled.dtype, torch.float32))
            alpha = F.linear(self.dropout1(pooled), self.fc_alpha.weight.to(pooled), self.fc_alpha.bias.to(pooled))
            theta = F.linear(self.dropout2(pooled), self.fc_theta.weight.to(pooled))
            return alpha.sigmoid(), F.softsign(theta) * self.max_angle
