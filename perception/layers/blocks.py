"""Parts of the layers that DETR-like systems stack (arXiv 2005.12872, appendix A.3), each with its residual inside.

Notation: B batch, Q queries, C channels. Tensors are batch-first.
"""

from __future__ import annotations

from torch import Tensor, nn


class FeedForward(nn.Module):
    """Linear, ReLU, Linear, plus the input.

    Args:
        embed_dims: C.
        feedforward_channels: width in between.
        dropout: after either linear map.
    """

    def __init__(self, embed_dims: int, feedforward_channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Sequential(nn.Linear(embed_dims, feedforward_channels), nn.ReLU(inplace=True), nn.Dropout(dropout)),
            nn.Linear(feedforward_channels, embed_dims),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class SelfAttention(nn.Module):
    """Multi-head self-attention whose queries and keys carry a position, plus the input.

    Args:
        embed_dims: C, divisible by ``num_heads``.
        num_heads: of the attention.
        dropout: of the attention weights and of the result.
    """

    def __init__(self, embed_dims: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(embed_dims, num_heads, dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """x, position: (B, Q, C); attn_mask: (Q, Q) bool, True where attention is blocked."""
        positioned = x + position
        return x + self.dropout(self.attn(positioned, positioned, x, attn_mask=attn_mask, need_weights=False)[0])
