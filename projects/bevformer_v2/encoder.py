"""The encoder: cells seen from above gather from each other and from the images (arXiv 2203.17270, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from perception.layers.blocks import FeedForward

from .attention import SpatialCrossAttention, TemporalSelfAttention
from .points import VisibleQueries


class BEVFormerLayer(nn.Module):
    """Post-norm: temporal self-attention, norm, spatial cross-attention, norm, feed-forward, norm.

    ``num_heads`` is of both attentions, or of each.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int | Sequence[int],
        num_levels: int,
        num_temporal_points: int,
        num_spatial_points: int,
        feedforward_channels: int,
        dropout: float,
    ) -> None:
        super().__init__()
        temporal_heads, spatial_heads = (num_heads, num_heads) if isinstance(num_heads, int) else num_heads
        self.self_attn = TemporalSelfAttention(embed_dims, temporal_heads, num_temporal_points, dropout)
        self.cross_attn = SpatialCrossAttention(embed_dims, spatial_heads, num_levels, num_spatial_points, dropout)
        self.ffn = FeedForward(embed_dims, feedforward_channels, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dims) for _ in range(3))

    def forward(
        self,
        query: Tensor,
        position: Tensor,
        tokens: Tensor,
        visible: VisibleQueries,
        spatial_shapes: Tensor,
        cells: Tensor,
        bev_size: tuple[int, int],
        views: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> Tensor:
        """(B, Q, C). The position counts in the self-attention alone."""
        query = self.norms[0](self.self_attn(query, position, cells, bev_size, views, shift))
        query = self.norms[1](self.cross_attn(query, tokens, visible, spatial_shapes))
        return self.norms[2](self.ffn(query))


class BEVFormerEncoder(nn.Module):
    """A stack of :class:`BEVFormerLayer`; no final norm.

    Args:
        num_layers: of the stack.
        layer: keyword arguments of :class:`BEVFormerLayer`.
        checkpointing: recompute layers in the backward pass instead of keeping activations.
    """

    def __init__(self, num_layers: int, layer: dict, checkpointing: bool = False) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.layers = nn.ModuleList(BEVFormerLayer(**layer) for _ in range(num_layers))

    def forward(
        self,
        query: Tensor,
        position: Tensor,
        tokens: Tensor,
        visible: VisibleQueries,
        spatial_shapes: Tensor,
        cells: Tensor,
        bev_size: tuple[int, int],
        previous: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> Tensor:
        """
        Args:
            query: (B, Q, C), what the cells begin with.
            position: (B, Q, C) of the cells.
            tokens: (B, N, S, C) of the images.
            visible: what each of the B N cameras sees.
            spatial_shapes: (V, 2) int64, height and width of every level of the images.
            cells: (Q, 2) x, y of the cells in shares of the grid.
            bev_size: rows and columns.
            previous: (B, Q, C), the result for an earlier frame in the current frame's axes, as the first BEVFormer
                uses it; None in BEVFormer v2.
            shift: (B, 2) x, y of ego motion in shares of the grid; with ``previous`` only.

        Returns:
            (B, Q, C).
        """
        # All layers see the initial query as the current view beside an earlier one: published weights were trained so.
        views = None if previous is None else torch.stack([previous, query], 1)
        for layer in self.layers:
            args = (query, position, tokens, visible, spatial_shapes, cells, bev_size, views, shift)
            if self.checkpointing and torch.is_grad_enabled():
                query = checkpoint(layer, *args, use_reentrant=False)
            else:
                query = layer(*args)
        return query
