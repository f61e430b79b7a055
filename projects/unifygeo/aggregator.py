"""From a map of features to one descriptor of the image."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d

from .encoder import EPS

AGGREGATORS = ("soa_gem", "gem", "avg")
_NORMS = {"LN": LayerNorm2d, "BN": nn.BatchNorm2d, None: nn.Identity}


class SecondOrderAttention(nn.Module):
    """Self-attention between all cells of a map, added to it; the identity at the start.

    Args:
        channels: of the map.
        reduction: channels of the keys are ``channels // reduction``.
        norm: of queries and keys: "LN" over the channels (published), "BN" or None.

    Raises:
        ValueError: no channels would be left, or the norm is unknown.
    """

    def __init__(self, channels: int, reduction: int = 2, norm: str | None = "LN"):
        super().__init__()
        if norm not in _NORMS:
            raise ValueError(f"the attention's norm must be one of {', '.join(map(repr, _NORMS))}, got {norm!r}")
        inner = channels // reduction
        if inner < 1:
            raise ValueError(f"a reduction of {reduction} leaves no channels of {channels}")
        self.f, self.g = (
            nn.Sequential(nn.Conv2d(channels, inner, 1), _NORMS[norm](inner, eps=EPS), nn.ReLU()) for _ in range(2)
        )
        self.h = nn.Conv2d(channels, inner, 1)
        self.v = nn.Conv2d(inner, channels, 1)
        for conv in (self.f[0], self.g[0], self.h):
            nn.init.kaiming_normal_(conv.weight)
            nn.init.zeros_(conv.bias)
        nn.init.zeros_(self.v.weight)
        nn.init.zeros_(self.v.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        batch, _, height, width = features.shape
        f, g, h = (layer(features).flatten(2) for layer in (self.f, self.g, self.h))  # (B, m, HW)
        attention = (f.transpose(1, 2) @ g / math.sqrt(f.shape[1])).softmax(-1)  # (B, HW, HW), over keys
        attended = h @ attention.transpose(1, 2)
        return self.v(attended.view(batch, -1, height, width)) + features


class GeM(nn.Module):
    """Generalised mean over the cells of a map, with a learnt exponent.

    Args:
        p: the exponent at the start.
        eps: smaller activations, all negative ones among them, count as this.
    """

    def __init__(self, p: float = 3.0, eps: float = EPS):
        super().__init__()
        self.p = nn.Parameter(torch.tensor([p]))
        self.eps = eps

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C)."""
        return features.clamp(min=self.eps).pow(self.p).mean((-2, -1)).pow(1 / self.p)


class Aggregator(nn.Module):
    """Descriptor of a map.

    Args:
        channels: of the map and of the descriptor.
        kind: "soa_gem" (second-order attention, then GeM), "gem" or "avg" (plain mean).
        reduction: of the attention.
        norm: a LayerNorm at the end.
        attention_norm: see :class:`SecondOrderAttention`.

    Raises:
        ValueError: the kind or the attention's norm is unknown.
    """

    def __init__(
        self,
        channels: int,
        kind: str = "soa_gem",
        reduction: int = 2,
        norm: bool = True,
        attention_norm: str | None = "LN",
    ):
        super().__init__()
        if kind not in AGGREGATORS:
            raise ValueError(f"aggregator must be one of {', '.join(AGGREGATORS)}, got {kind!r}")
        soa = kind == "soa_gem"
        self.attention = SecondOrderAttention(channels, reduction, attention_norm) if soa else nn.Identity()
        self.pool = _Mean() if kind == "avg" else GeM()
        self.norm = nn.LayerNorm(channels, eps=EPS) if norm else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) to descriptors (B, C), not normalised to unit length."""
        return self.norm(self.pool(self.attention(features)))


class _Mean(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.mean((-2, -1))
