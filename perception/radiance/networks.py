"""Perceptrons of fields of signed distance."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class MLP(nn.Module):
    """Linear layers with an activation between them, and none at the end.

    By default ReLU and He's uniform weights. With ``sphere_init`` the activation is softplus (beta 100), and the first
    output starts near the signed distance ``|x| - sphere_init`` of the first three inputs, whatever the others are
    (SAL, arXiv:1911.10414, as NeuS uses it).

    Args:
        in_features, out_features: widths at both ends.
        width: of the hidden layers.
        depth: number of hidden layers, at least 1.
        sphere_init: radius of the sphere; ``None`` for a network that is no distance.
        weight_norm: train a length and a direction of each output's weights.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        width: int,
        depth: int,
        *,
        sphere_init: float | None = None,
        weight_norm: bool = False,
    ):
        super().__init__()
        widths = [in_features, *[width] * depth, out_features]
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(pairwise(widths)):
            if number:
                layers.append(nn.ReLU() if sphere_init is None else Softplus())
            linear = nn.Linear(before, after)
            nn.init.zeros_(linear.bias)
            if sphere_init is None:
                nn.init.kaiming_uniform_(linear.weight, nonlinearity="relu")
            else:
                _spherical_(linear, first=number == 0, last=number == depth, radius=sphere_init)
            layers.append(_normalised(linear) if weight_norm else linear)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        return self.layers(x)


class Softplus(nn.Module):
    """``log(1 + exp(100 x)) / 100``."""

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        return F.softplus(x, beta=100)


def _spherical_(linear: nn.Linear, *, first: bool, last: bool, radius: float) -> None:
    spread = math.sqrt(2 / linear.out_features)
    if last:
        nn.init.normal_(linear.weight, mean=math.sqrt(math.pi / linear.in_features), std=1e-4)
        nn.init.constant_(linear.bias, -radius)
    elif first:
        nn.init.zeros_(linear.weight)
        with torch.no_grad():
            linear.weight[:, :3].normal_(0, spread)
    else:
        nn.init.normal_(linear.weight, 0, spread)


def _normalised(linear: nn.Linear) -> nn.Module:
    return weight_norm(linear, dim=0)
