"""DenseFPN: a stack of pyramid stages in which every level sees all coarser and then all finer ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .convolution import ConvNorm, init_uniform


class DenseFPN(nn.Module):
    """Feature pyramid with dense top-down and bottom-up connections (arXiv 2111.11057, feature domain).

    With L = ``num_outs`` levels P_0 (finest) to P_L-1, a stage computes, with a bottleneck for each node,

    - top-down T_i from P_i and the maps of *all* coarser levels as they came into the stage,
    - bottom-up U_i from P_i, T_i and *all* finer T,

    and its U are the next stage's P. Other levels are weighed by a softmax over one vector per node, which all stages
    share; a single other level has the weight 1. The published models have 5 stages.

    Args:
        in_channels: of the maps, from shallow to deep.
        out_channels: C of every output.
        num_outs: L; levels beyond the maps come from strided convolutions of the deepest lateral map.
        start_level: first of the maps that is used.
        end_level: end (exclusive) of the maps that are used; -1 for all. Another value leaves no room for further
            levels.
        stack_times: stages.
        reduction: C over the inner channels of a bottleneck.
        conv_block: makes a convolution with its norm, called as ``ConvNorm`` is.

    Raises:
        ValueError: the maps that are used and ``num_outs`` do not fit.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        num_outs: int,
        start_level: int = 0,
        end_level: int = -1,
        stack_times: int = 1,
        reduction: int = 2,
        conv_block: Callable[..., nn.Module] = ConvNorm,
    ):
        super().__init__()
        used = list(in_channels)[start_level : None if end_level == -1 else end_level]
        if not used or num_outs < len(used) or (end_level != -1 and num_outs != len(used)):
            wanted = f"at least {len(used)}" if end_level == -1 else f"{len(used)}"
            raise ValueError(f"{len(used)} maps are used, so num_outs must be {wanted}, got {num_outs}")
        self.num_ins, self.start_level, self.num_outs = len(in_channels), start_level, num_outs
        inner = max(out_channels // reduction, 1)

        def bottleneck() -> nn.Sequential:
            return nn.Sequential(
                conv_block(out_channels, inner, 1),
                conv_block(inner, inner, 3, padding=1),
                conv_block(inner, out_channels, 1),
            )

        self.lateral_convs = nn.ModuleList(conv_block(channels, out_channels, 1) for channels in used)
        self.extra_convs = nn.ModuleList(
            conv_block(out_channels, out_channels, 3, stride=2, padding=1) for _ in range(num_outs - len(used))
        )
        # Of a stage, the first L bottlenecks are those of the top-down nodes, the others of the bottom-up ones.
        self.stages = nn.ModuleList(
            nn.ModuleList(bottleneck() for _ in range(2 * num_outs)) for _ in range(stack_times)
        )
        others = range(2, num_outs)
        self.top_down_atts = nn.ParameterList(nn.Parameter(torch.ones(count)) for count in reversed(others))
        self.bottom_up_atts = nn.ParameterList(nn.Parameter(torch.ones(count)) for count in others)
        init_uniform(self)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps (B, C, H_i, W_i) of ``num_outs`` levels for maps of the backbone, from shallow to deep."""
        if len(inputs) != self.num_ins:
            raise ValueError(f"the neck was built for {self.num_ins} maps, got {len(inputs)}")
        levels = [conv(x) for conv, x in zip(self.lateral_convs, inputs[self.start_level :])]
        for conv in self.extra_convs:
            levels.append(conv(levels[-1]))
        for stage in self.stages:
            down = self.top_down(levels, stage[: self.num_outs])
            levels = self.bottom_up(levels, down, stage[self.num_outs :])
        return tuple(levels)

    def top_down(self, levels: Sequence[Tensor], nodes: Sequence[nn.Module]) -> list[Tensor]:
        """T_i of a stage, from finest to coarsest. The weights of coarser levels begin with the coarsest."""
        refined = []
        # From the coarsest on, as published: the order of the nodes is that in which their gradients are added up, and
        # parameters whose gradient is 0 but for rounding (what a norm undoes) have the published rounding so.
        for i in reversed(range(len(levels))):
            coarser = (_enlarge(other, levels[i]) for other in reversed(levels[i + 1 :]))
            weights = self.top_down_atts[i].softmax(0) if len(levels) - i > 2 else (1,)
            refined.append(nodes[i](F.relu(levels[i] + _weighted_sum(coarser, weights))))
        return refined[::-1]

    def bottom_up(self, levels: Sequence[Tensor], down: Sequence[Tensor], nodes: Sequence[nn.Module]) -> list[Tensor]:
        """U_i of a stage, from finest to coarsest. The weights of finer levels begin with the finest."""
        refined = []
        for i, (level, same, node) in enumerate(zip(levels, down, nodes)):
            finer = (F.adaptive_max_pool2d(other, level.shape[-2:]) for other in down[:i])
            weights = self.bottom_up_atts[i - 2].softmax(0) if i > 1 else (1,)
            refined.append(node(F.relu(level + same + _weighted_sum(finer, weights))))
        return refined


def _enlarge(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _weighted_sum(maps: Iterable[Tensor], weights: Iterable[Tensor | int]) -> Tensor | int:
    """Of none 0."""
    return sum(weight * x for weight, x in zip(weights, maps))
