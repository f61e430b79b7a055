"""SCP, the spatial context pyramid: each level gathers context from all of its map and spreads it again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from .convolution import ConvNorm, init_uniform


class ContextAggregation(nn.Module):
    """Adds a global context vector to a map, at each place as much as the place asks for.

    The softmax that gathers runs over all of the map, also what was padded. A fresh block is the identity.

    Args:
        in_channels: C of the map.
        reduction: C over the channels of the gathered vector.
        conv_block: makes a convolution, called as ``ConvNorm`` is.
    """

    def __init__(self, in_channels: int, reduction: int = 1, conv_block: Callable[..., nn.Module] = ConvNorm):
        super().__init__()
        inner = max(in_channels // reduction, 1)
        self.a = conv_block(in_channels, 1, 1)
        self.k = conv_block(in_channels, 1, 1)
        self.v = conv_block(in_channels, inner, 1)
        self.m = conv_block(inner, in_channels, 1)
        init_uniform(self)
        nn.init.zeros_(self.m.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) -> the same shape."""
        share = self.a(x).sigmoid()
        where = self.k(x).flatten(2)[..., None].softmax(2)  # (B, 1, HW, 1)
        context = self.v(x).flatten(2)[:, None] @ where  # (B, 1, c, 1)
        return x + self.m(context.transpose(1, 2)) * share


class SCP(nn.Module):
    """A block for each level of a pyramid; levels do not mix.

    Args:
        in_channels: of every level.
        num_levels: levels.
        block: makes the block for a number of channels.
    """

    def __init__(self, in_channels: int, num_levels: int, block: Callable[[int], nn.Module] = ContextAggregation):
        super().__init__()
        self.blocks = nn.ModuleList(block(in_channels) for _ in range(num_levels))

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps (B, C, H_i, W_i) -> the same shapes."""
        if len(inputs) != len(self.blocks):
            raise ValueError(f"the module was built for {len(self.blocks)} levels, got {len(inputs)}")
        return tuple(block(x) for block, x in zip(self.blocks, inputs))
