"""Multi-scale deformable attention as modules (arXiv 2010.04159, section 4.1).

Notation: B batch, Q queries, S flattened tokens over all levels, C channels, V levels, H heads, P points. Tensors are
batch-first throughout.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from perception.ops.ms_deform_attn import multi_scale_deformable_attention


def ring_offsets(num_heads: int, num_levels: int, num_points: int) -> Tensor:
    """Initial offsets: a direction per head, on the border of a square that grows with the point's number.

    Returns:
        (H, V, P, 2) x, y in pixels of each level; the same for all levels.
    """
    angle = torch.arange(num_heads, dtype=torch.float32) * (2.0 * math.pi / num_heads)
    direction = torch.stack([angle.cos(), angle.sin()], -1)
    direction = direction / direction.abs().amax(-1, keepdim=True)
    step = torch.arange(1, num_points + 1, dtype=torch.float32)
    return (direction[:, None, None, :] * step[None, None, :, None]).expand(-1, num_levels, -1, -1)


def sampling_locations(reference_points: Tensor, offsets: Tensor, spatial_shapes: Tensor) -> Tensor:
    """Where each head samples each level.

    Args:
        reference_points: of one of the shapes

            - (B, Q, V, 2): x, y relative to each level. Offsets count in pixels of the level.
            - (B, Q, V, P, 2): the same, with a place of its own for every point (the heights of a pillar, for one). V
              may be 1: one place on all levels.
            - (B, Q, V, 4): boxes cx, cy, w, h relative to each level. Offsets count in P-ths of half a box.
        offsets: (B, Q, H, V, P, 2).
        spatial_shapes: (V, 2) int64, height and width of every level.

    Returns:
        (B, Q, H, V, P, 2) x, y relative to each level.

    Raises:
        ValueError: the reference points have another shape.
    """
    if reference_points.dim() == 5 and reference_points.shape[-1] == 2:
        reference = reference_points[:, :, None]  # B, Q, 1, V or 1, P, 2
    elif reference_points.dim() == 4 and reference_points.shape[-1] in (2, 4):
        reference = reference_points[:, :, None, :, None, :]  # B, Q, 1, V, 1, 2 or 4
    else:
        raise ValueError(
            "reference_points must have the shape (B, Q, V, 2), (B, Q, V, P, 2) or (B, Q, V, 4), got "
            f"{tuple(reference_points.shape)}"
        )
    if reference.shape[-1] == 4:
        return reference[..., :2] + offsets / offsets.shape[4] * reference[..., 2:] * 0.5
    sizes = spatial_shapes.flip(-1).to(offsets)[None, None, None, :, None, :]  # w, h of each level
    return reference + offsets / sizes


class DeformableSampling(nn.Module):
    """What deformable attention gathers: projected values at a few places around each query's reference points.

    Neither projected afterwards nor added to the query: :class:`MultiScaleDeformableAttention` does both. On its own it
    serves where samples of several sources are merged first (cameras, frames).

    Args:
        embed_dims: C of the values, divisible by ``num_heads``.
        num_heads: H.
        num_levels: V.
        num_points: P, samples per head and level.
        query_dims: channels of the queries; C unless given.

    Raises:
        ValueError: the heads do not divide the channels.
    """

    def __init__(
        self,
        embed_dims: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 4,
        query_dims: int | None = None,
    ) -> None:
        super().__init__()
        if embed_dims % num_heads:
            raise ValueError(f"embed_dims must be divisible by num_heads, got {embed_dims} and {num_heads}")
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        samples = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(query_dims or embed_dims, samples * 2)
        self.attention_weights = nn.Linear(query_dims or embed_dims, samples)
        self.value_proj = nn.Linear(embed_dims, embed_dims)
        DeformableSampling.reset_parameters(self)

    def reset_parameters(self) -> None:
        """Offsets start as :func:`ring_offsets` whatever the query; attention starts uniform."""
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            offsets = ring_offsets(self.num_heads, self.num_levels, self.num_points)
            self.sampling_offsets.bias.copy_(offsets.flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        nn.init.xavier_uniform_(self.value_proj.weight)
        nn.init.zeros_(self.value_proj.bias)

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor | None,
        value: Tensor,
        reference_points: Tensor,
        spatial_shapes: Tensor,
        key_padding_mask: Tensor | None = None,
    ) -> Tensor:
        """
        Args:
            query: (B, Q, ``query_dims``).
            query_pos: added to the query, or None.
            value: (B, S, C).
            reference_points: see :func:`sampling_locations`.
            spatial_shapes: (V, 2) int64, height and width of every level. On the CPU it spares a wait for the device.
            key_padding_mask: (B, S) bool, True where the token is padding; None where nothing is.

        Returns:
            (B, Q, C).
        """
        batch, num_queries, _ = query.shape
        positioned = query if query_pos is None else query + query_pos
        projected = self.value_proj(value)
        if key_padding_mask is not None:
            projected = projected.masked_fill(key_padding_mask[..., None], 0.0)
        projected = projected.unflatten(-1, (self.num_heads, -1))

        samples = (self.num_heads, self.num_levels, self.num_points)
        offsets = self.sampling_offsets(positioned).view(batch, num_queries, *samples, 2)
        weights = self.weigh(self.attention_weights(positioned).view(batch, num_queries, *samples))
        # As precise as they come, also beside half-precision values: see the operator.
        locations = sampling_locations(reference_points, offsets, spatial_shapes)
        return multi_scale_deformable_attention(projected, spatial_shapes, locations, weights)

    def weigh(self, logits: Tensor) -> Tensor:
        """Logits (B, Q, H, V, P) to attention weights, which sum to 1 over levels and points together.

        A subclass may normalise otherwise, say over the points of each level where "levels" are frames.
        """
        return logits.flatten(-2).softmax(-1).view_as(logits)


class MultiScaleDeformableAttention(DeformableSampling):
    """Multi-scale deformable attention with the residual connection inside (arXiv 2010.04159, eq. 3).

    Args:
        embed_dims: C of queries and values, divisible by ``num_heads``.
        num_heads: H.
        num_levels: V.
        num_points: P, samples per head and level.
        dropout: of the result, before ``query`` is added.
    """

    def __init__(
        self,
        embed_dims: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(embed_dims, num_heads, num_levels, num_points)
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self.dropout = nn.Dropout(dropout)
        self._reset_output()

    def reset_parameters(self) -> None:
        """As :class:`DeformableSampling`; both projections Xavier-uniform."""
        super().reset_parameters()
        self._reset_output()

    def _reset_output(self) -> None:
        nn.init.xavier_uniform_(self.output_proj.weight)
        nn.init.zeros_(self.output_proj.bias)

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor | None,
        value: Tensor,
        reference_points: Tensor,
        spatial_shapes: Tensor,
        key_padding_mask: Tensor | None = None,
    ) -> Tensor:
        """
        Args:
            query: (B, Q, C).
            query_pos: (B, Q, C) or None; added to the query for offsets and weights only.
            value: (B, S, C).
            reference_points: see :func:`sampling_locations`.
            spatial_shapes: (V, 2) int64, height and width of every level.
            key_padding_mask: (B, S) bool, True where the token is padding; None where nothing is.

        Returns:
            (B, Q, C): attended values plus ``query``.
        """
        sampled = super().forward(query, query_pos, value, reference_points, spatial_shapes, key_padding_mask)
        return self.dropout(self.output_proj(sampled)) + query
