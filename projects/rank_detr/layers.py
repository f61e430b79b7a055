"""Building blocks of the deformable transformer that Rank-DETR shares with (H-)Deformable-DETR.

Plain torch. Notation: B batch, Q queries, S flattened tokens over all levels, C channels, V levels, H heads, P points.
Sources: Deformable-DETR (arXiv 2010.04159), H-Deformable-DETR (arXiv 2207.13080), Rank-DETR (arXiv 2310.08854).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from perception.ops.ms_deform_attn import multi_scale_deformable_attention


def inverse_sigmoid(x: Tensor, eps: float = 1e-3) -> Tensor:
    """Logit of ``x`` clamped to [0, 1], with numerator and denominator bounded below.

    Args:
        x: any shape.
        eps: lower bound of ``x`` and ``1 - x``. 1e-3 in the whole system; mmdet's default of 1e-5 breaks published
            weights.

    Returns:
        ``log(max(x, eps) / max(1 - x, eps))``, same shape.
    """
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def sine_position_encoding(mask: Tensor, num_feats: int, temperature: float = 10000.0) -> Tensor:
    """Normalised sine encoding of pixel positions, counted over valid pixels only.

    Args:
        mask: (B, H, W) bool, True where the pixel is padding.
        num_feats: channels per axis (half of the model width).

    Returns:
        (B, 2 * num_feats, H, W) float32, the y half first; sines and cosines interleaved.
    """
    valid = (~mask).to(torch.float32)
    y, x = valid.cumsum(1), valid.cumsum(2)
    y = (y - 0.5) / (y[:, -1:, :] + 1e-6) * 2 * math.pi
    x = (x - 0.5) / (x[:, :, -1:] + 1e-6) * 2 * math.pi
    encoded = torch.cat([_sine_features(y, num_feats, temperature), _sine_features(x, num_feats, temperature)], -1)
    return encoded.permute(0, 3, 1, 2)


def proposal_position_embedding(proposals: Tensor, num_feats: int, temperature: float = 10000.0) -> Tensor:
    """Sine embedding of box proposals.

    Args:
        proposals: (B, Q, 4) box logits (before the sigmoid), cx, cy, w, h.
        num_feats: channels per coordinate (half of the model width).

    Returns:
        (B, Q, 4 * num_feats) float32, in the order cx, cy, w, h.
    """
    positions = proposals.float().sigmoid() * 2 * math.pi
    return _sine_features(positions, num_feats, temperature).flatten(2)


def _sine_features(positions: Tensor, num_feats: int, temperature: float) -> Tensor:
    """(...) -> (..., num_feats): sin at even, cos at odd channels."""
    index = torch.arange(num_feats, dtype=torch.float32, device=positions.device)
    angle = positions[..., None] / temperature ** (2 * torch.div(index, 2, rounding_mode="floor") / num_feats)
    return torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], -1).flatten(-2)


class MultiScaleDeformableAttention(nn.Module):
    """Multi-scale deformable attention with the residual connection inside (arXiv 2010.04159, eq. 3).

    Args:
        embed_dims: C, divisible by ``num_heads``.
        num_heads: attention heads.
        num_levels: feature levels.
        num_points: samples per head and level.
    """

    def __init__(self, embed_dims: int = 256, num_heads: int = 8, num_levels: int = 4, num_points: int = 4) -> None:
        super().__init__()
        if embed_dims % num_heads:
            raise ValueError(f"embed_dims must be divisible by num_heads, got {embed_dims} and {num_heads}")
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        self.sampling_offsets = nn.Linear(embed_dims, num_heads * num_levels * num_points * 2)
        self.attention_weights = nn.Linear(embed_dims, num_heads * num_levels * num_points)
        self.value_proj = nn.Linear(embed_dims, embed_dims)
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Offsets start as a ring of directions that grows with the point index; attention starts uniform."""
        nn.init.zeros_(self.sampling_offsets.weight)
        angle = torch.arange(self.num_heads, dtype=torch.float32) * (2.0 * math.pi / self.num_heads)
        direction = torch.stack([angle.cos(), angle.sin()], -1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        step = torch.arange(1, self.num_points + 1, dtype=torch.float32)
        offsets = direction[:, None, None, :] * step[None, None, :, None]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.num_levels, -1, -1).flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        value: Tensor,
        reference_points: Tensor,
        spatial_shapes: Tensor,
        key_padding_mask: Tensor | None = None,
    ) -> Tensor:
        """
        Args:
            query: (B, Q, C).
            query_pos: (B, Q, C), added to the query for offsets and weights only.
            value: (B, S, C).
            reference_points: (B, Q, V, 2) centres or (B, Q, V, 4) boxes cx, cy, w, h, relative to each level.
            spatial_shapes: (V, 2) int64, height and width of every level.
            key_padding_mask: (B, S) bool, True where the token is padding.

        Returns:
            (B, Q, C): attended values plus ``query``.
        """
        batch, num_queries, _ = query.shape
        heads, levels, points = self.num_heads, self.num_levels, self.num_points
        positioned = query + query_pos

        projected = self.value_proj(value)
        if key_padding_mask is not None:
            projected = projected.masked_fill(key_padding_mask[..., None], 0.0)
        projected = projected.view(batch, -1, heads, projected.shape[-1] // heads)

        offsets = self.sampling_offsets(positioned).view(batch, num_queries, heads, levels, points, 2)
        weights = self.attention_weights(positioned).view(batch, num_queries, heads, levels * points)
        weights = weights.softmax(-1).view(batch, num_queries, heads, levels, points)

        reference = reference_points[:, :, None, :, None, :]  # B, Q, 1, V, 1, 2 or 4
        if reference_points.shape[-1] == 2:
            sizes = spatial_shapes.flip(-1).to(offsets)[None, None, None, :, None, :]  # w, h of each level
            locations = reference + offsets / sizes
        else:
            locations = reference[..., :2] + offsets / points * reference[..., 2:] * 0.5

        attended = multi_scale_deformable_attention(projected, spatial_shapes, locations.to(projected), weights)
        return self.output_proj(attended) + query


class FeedForward(nn.Module):
    """Linear, ReLU, Linear, plus the input."""

    def __init__(self, embed_dims: int, feedforward_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Sequential(nn.Linear(embed_dims, feedforward_channels), nn.ReLU(inplace=True)),
            nn.Linear(feedforward_channels, embed_dims),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class SelfAttention(nn.Module):
    """Multi-head self-attention whose queries and keys carry a position, plus the input."""

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(embed_dims, num_heads, batch_first=True)

    def forward(self, x: Tensor, position: Tensor, attn_mask: Tensor | None) -> Tensor:
        """x, position: (B, Q, C); attn_mask: (Q, Q) bool, True where attention is blocked."""
        positioned = x + position
        return x + self.attn(positioned, positioned, x, attn_mask=attn_mask, need_weights=False)[0]


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
        self, x: Tensor, position: Tensor, reference_points: Tensor, spatial_shapes: Tensor, mask: Tensor | None
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
        memory_mask: Tensor | None,
        attn_mask: Tensor | None,
    ) -> Tensor:
        x = self.norms[0](self.self_attn(x, query_pos, attn_mask))
        x = self.norms[1](self.cross_attn(x, query_pos, memory, reference_points, spatial_shapes, memory_mask))
        return self.norms[2](self.ffn(x))
