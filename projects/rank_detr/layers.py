"""Building blocks of the deformable transformer that Rank-DETR shares with (H-)Deformable-DETR.

Plain torch. Notation: B batch, Q queries, C channels.
Sources: Deformable-DETR (arXiv 2010.04159), H-Deformable-DETR (arXiv 2207.13080), Rank-DETR (arXiv 2310.08854).
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from perception.layers.blocks import FeedForward, SelfAttention
from perception.layers.deformable_attention import MultiScaleDeformableAttention
from perception.layers.position_encoding import sine_features
from perception.layers.precision import at_least_float32


def proposal_position_embedding(proposals: Tensor, num_feats: int, temperature: float = 10000.0) -> Tensor:
    """Sine embedding of box proposals.

    Args:
        proposals: (B, Q, 4) box logits (before the sigmoid), cx, cy, w, h.
        num_feats: channels per coordinate (half of the model width).

    Returns:
        (B, Q, 4 * num_feats), in the order cx, cy, w, h; float32 for half-precision proposals.
    """
    positions = at_least_float32(proposals).sigmoid() * 2 * math.pi
    return sine_features(positions, num_feats, temperature).flatten(2)


class EncoderLayer(nn.Module):
    """Post-norm: deformable self-attention, norm, feed-forward, norm."""

    def __init__(
        self, embed_dims: int, num_heads: int, num_levels: int, num_points: int, feedforward_channels: int
    ) -> None:
        super().__init__()
        self.self_attn = MultiScaleDeformableAttention(embed_dims, num_heads, num_levels, num_points)
        self.ffn = FeedForward(embed_dims, feedforward_channels)
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dims) for _ in range(2))

    def forward(
        self, x: Tensor, position: Tensor, reference_points: Tensor, spatial_shapes: Tensor, mask: Tensor
    ) -> Tensor:
        x = self.norms[0](self.self_attn(x, position, x, reference_points, spatial_shapes, mask))
        return self.norms[1](self.ffn(x))


class DecoderLayer(nn.Module):
    """Post-norm: self-attention, norm, deformable cross-attention, norm, feed-forward, norm."""

    def __init__(
        self, embed_dims: int, num_heads: int, num_levels: int, num_points: int, feedforward_channels: int
    ) -> None:
        super().__init__()
        self.self_attn = SelfAttention(embed_dims, num_heads)
        self.cross_attn = MultiScaleDeformableAttention(embed_dims, num_heads, num_levels, num_points)
        self.ffn = FeedForward(embed_dims, feedforward_channels)
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dims) for _ in range(3))

    def forward(
        self,
        x: Tensor,
        query_pos: Tensor,
        reference_points: Tensor,
        memory: Tensor,
        spatial_shapes: Tensor,
        memory_mask: Tensor,
        attn_mask: Tensor | None,
    ) -> Tensor:
        x = self.norms[0](self.self_attn(x, query_pos, attn_mask))
        x = self.norms[1](self.cross_attn(x, query_pos, memory, reference_points, spatial_shapes, memory_mask))
        return self.norms[2](self.ffn(x))
