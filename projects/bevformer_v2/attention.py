"""The attentions of BEVFormer (arXiv 2203.17270, sections 3.3 and 3.4) and of its decoder with groups of queries.

Notation: B batch, N cameras, Q queries, S tokens of one camera over all levels, C channels, V levels, H heads, P
points, D points of a pillar. Tensors are batch-first.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perception.layers.blocks import SelfAttention
from perception.layers.deformable_attention import DeformableSampling, sampling_locations
from perception.ops.ms_deform_attn import multi_scale_deformable_attention

from .points import VisibleQueries


class SpatialCrossAttention(nn.Module):
    """Each query gathers from the cameras that see its pillar; the mean over them is projected and added.

    A ragged gather: each camera attends for the queries it sees and for no other. The released code pads the list of
    every camera to the longest, and takes that of the first sample for the whole batch.

    Args:
        embed_dims, num_heads, num_levels, num_points: see :class:`DeformableSampling`. Point p of a head is offset from
            the pillar's point p mod D.
        dropout: of the result, before ``query`` is added.
    """

    def __init__(
        self,
        embed_dims: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 8,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.deformable_attention = DeformableSampling(embed_dims, num_heads, num_levels, num_points)
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self.dropout = nn.Dropout(dropout)
        self._reset_output()

    def reset_parameters(self) -> None:
        """As :class:`MultiScaleDeformableAttention`."""
        self.deformable_attention.reset_parameters()
        self._reset_output()

    def _reset_output(self) -> None:
        nn.init.xavier_uniform_(self.output_proj.weight)
        nn.init.zeros_(self.output_proj.bias)

    def forward(self, query: Tensor, tokens: Tensor, visible: VisibleQueries, spatial_shapes: Tensor) -> Tensor:
        """
        Args:
            query: (B, Q, C).
            tokens: (B, N, S, C).
            visible: what each of the B N cameras sees.
            spatial_shapes: (V, 2) int64, height and width of every level.

        Returns:
            (B, Q, C). A query that no camera sees gets the projection's bias plus itself.
        """
        flat = query.flatten(0, 1)
        gathered = torch.zeros_like(flat)
        for rows, references, camera_tokens in zip(visible.rows, visible.references, tokens.flatten(0, 1)):
            sampled = self.deformable_attention(
                flat[rows][None], None, camera_tokens[None], self._places(references)[None], spatial_shapes
            )
            gathered = gathered.index_add(0, rows, sampled[0].to(gathered.dtype))
        mean = gathered.view_as(query) / visible.seen
        return self.dropout(self.output_proj(mean)) + query

    def _places(self, references: Tensor) -> Tensor:
        """Pillar points (r, D, 2) as the reference of each sampling point, (r, 1, P, 2)."""
        point = torch.arange(self.deformable_attention.num_points, device=references.device)
        return references[:, point % references.shape[1]][:, None]


class TemporalSelfAttention(DeformableSampling):
    """Deformable self-attention of the bird's-eye view over two of them: an earlier one and the current.

    Offsets and weights come from both, each is attended by itself, and the mean is projected and added to the query.
    BEVFormer v2 has no earlier one here, and the current serves twice.

    Args:
        embed_dims, num_heads, num_points: see :class:`DeformableSampling`; its "levels" are the two views.
        dropout: of the result, before ``query`` is added.
    """

    def __init__(self, embed_dims: int = 256, num_heads: int = 8, num_points: int = 4, dropout: float = 0.1) -> None:
        super().__init__(embed_dims, num_heads, 2, num_points, query_dims=2 * embed_dims)
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self.dropout = nn.Dropout(dropout)
        self._reset_output()

    def reset_parameters(self) -> None:
        """As :class:`MultiScaleDeformableAttention`."""
        super().reset_parameters()
        self._reset_output()

    def _reset_output(self) -> None:
        nn.init.xavier_uniform_(self.output_proj.weight)
        nn.init.zeros_(self.output_proj.bias)

    def weigh(self, logits: Tensor) -> Tensor:
        """The weights of each of the two views sum to 1."""
        return logits.softmax(-1)

    def forward(  # pyrefly: ignore[bad-override]
        self,
        query: Tensor,
        query_pos: Tensor,
        reference_points: Tensor,
        bev_size: tuple[int, int],
        views: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> Tensor:
        """
        Args:
            query: (B, Q, C), the cells row by row.
            query_pos: (B, Q, C).
            reference_points: (Q, 2) x, y of the cells in shares of the grid.
            bev_size: rows and columns of the grid.
            views: (B, 2, Q, C), an earlier view and the current one; None for the query itself twice.
            shift: (B, 2) x, y in shares of the grid, where the earlier view is read relative to the cell. None: there.

        Returns:
            (B, Q, C).
        """
        batch, num_queries, _ = query.shape
        earlier = query if views is None else views[:, 0]
        both = torch.cat([earlier, query + query_pos], -1)
        samples = (self.num_heads, 2, self.num_points)
        offsets = self.sampling_offsets(both).view(batch, num_queries, *samples, 2)
        weights = self.weigh(self.attention_weights(both).view(batch, num_queries, *samples))
        places = reference_points.expand(batch, -1, -1)
        shapes = torch.tensor([bev_size])
        if views is None:
            # Both views are one: it is projected once, and the points of both are its points.
            value, places = self.value_proj(query), places[:, :, None]
            offsets, weights = offsets.flatten(3, 4)[:, :, :, None], weights.flatten(3, 4)[:, :, :, None]
        else:
            moved = places if shift is None else places + shift[:, None]
            value, places = self.value_proj(views).flatten(1, 2), torch.stack([moved, places], 2)
            shapes = shapes.expand(2, 2)
        locations = sampling_locations(places, offsets, shapes)
        value = value.unflatten(-1, (self.num_heads, -1))
        mean = multi_scale_deformable_attention(value, shapes, locations, weights) / 2
        return self.dropout(self.output_proj(mean)) + query


class GroupSelfAttention(SelfAttention):
    """Self-attention within equal groups of consecutive queries, which do not see each other (arXiv 2207.13085)."""

    def forward(  # pyrefly: ignore[bad-override]
        self, x: Tensor, position: Tensor, num_groups: int
    ) -> Tensor:
        """x, position: (B, groups * Q, C)."""
        x_of_groups, position = (
            t.unflatten(1, (num_groups, -1)).flatten(0, 1) for t in (x, position)
        )  # (B groups) Q C
        return super().forward(x_of_groups, position).view_as(x)
