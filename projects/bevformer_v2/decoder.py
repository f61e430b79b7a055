"""The decoder: object queries look at the bird's-eye view and refine their reference points (arXiv 2211.10439)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from perception.layers.blocks import FeedForward
from perception.layers.deformable_attention import MultiScaleDeformableAttention
from perception.layers.inverse_sigmoid import inverse_sigmoid
from perception.layers.precision import at_least_float32

from .attention import GroupSelfAttention

# Of the logits of references, in the whole system.
REFERENCE_EPS = 1e-5


class DecoderLayer(nn.Module):
    """Post-norm: self-attention, norm, deformable cross-attention, norm, feed-forward, norm.

    ``num_heads`` is of both attentions, or of each.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int | Sequence[int],
        num_points: int,
        feedforward_channels: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self_heads, cross_heads = (num_heads, num_heads) if isinstance(num_heads, int) else num_heads
        self.self_attn = GroupSelfAttention(embed_dims, self_heads, dropout)
        self.cross_attn = MultiScaleDeformableAttention(embed_dims, cross_heads, 1, num_points, dropout)
        self.ffn = FeedForward(embed_dims, feedforward_channels, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dims) for _ in range(3))

    def forward(
        self,
        x: Tensor,
        query_pos: Tensor,
        reference_points: Tensor,
        bev: Tensor,
        bev_shape: Tensor,
        num_groups: int,
    ) -> Tensor:
        """x, query_pos: (B, Q, C); reference_points: (B, Q, 2); bev: (B, cells, C)."""
        x = self.norms[0](self.self_attn(x, query_pos, num_groups))
        x = self.norms[1](self.cross_attn(x, query_pos, bev, reference_points[:, :, None], bev_shape))
        return self.norms[2](self.ffn(x))


class BEVDecoder(nn.Module):
    """A stack of :class:`DecoderLayer` with iterative refinement of the reference points.

    Args:
        num_layers: L.
        layer: keyword arguments of :class:`DecoderLayer`.
    """

    def __init__(self, num_layers: int, layer: dict) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(**layer) for _ in range(num_layers))

    def forward(
        self,
        content: Tensor,
        query_pos: Tensor,
        reference: Tensor,
        bev: Tensor,
        bev_size: tuple[int, int],
        reg_branches: Sequence[nn.Module],
        num_groups: int = 1,
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            content, query_pos: (B, groups * Q, C).
            reference: (B, groups * Q, 3) x, y, z in shares of the detection range.
            bev: (B, cells, C), row by row.
            bev_size: rows and columns.
            reg_branches: one for each layer; numbers 0, 1 and 4 of what it gives correct x, y and z.
            num_groups: of queries that do not see each other.

        Returns:
            What each layer makes of the queries, (L, B, groups * Q, C), and the references that it began with,
            (L, B, groups * Q, 3). Gradients reach the first alone.
        """
        shape = torch.tensor([bev_size])
        hidden, references = [], []
        for layer, branch in zip(self.layers, reg_branches, strict=True):
            content = layer(content, query_pos, reference[..., :2], bev, shape, num_groups)
            hidden.append(content)
            references.append(reference)
            delta = at_least_float32(branch(content)[..., [0, 1, 4]])
            reference = (delta + inverse_sigmoid(reference, REFERENCE_EPS)).sigmoid().detach()
        return torch.stack(hidden), torch.stack(references)
