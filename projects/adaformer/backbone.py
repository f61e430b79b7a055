"""The AdaFormer backbone: set abstraction, then vector attention inside groups whose place and extent are learned.

The authors' code is not public. The paper states the parts (three stages, group regression, vector attention); how they
are put together is our definition, fixed by recorded values (tests/projects/adaformer).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perception.layers.point_sets import SharedMLP, maximum, pooled_groups, rows, sample_points, weighted_rows
from perception.ops.gather_points import gather_points
from perception.ops.knn import knn
from perception.ops.three_interpolate import three_interpolate
from perception.ops.three_nn import three_nn

from .levels import PointLevels

# A floor of (1 cm)^2 under squared distances keeps gradients finite where a member coincides with a point.
_FLOOR = 1e-4
_MAX_LOG_SCALE = math.log(2.0)


class GroupRegression(nn.Module):
    """Shift and extent of the group around each point, from its features and how they differ in the group.

    Args:
        width: channels d.

    Shape:
        features (B, n, d) and those of the members (B, n, k, d) to six numbers (B, n, 6): three for the shift, three
        for the scale; all 0 at the start.
    """

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(2 * width, width)
        self.fc2 = nn.Linear(width, 6)
        nn.init.zeros_(self.fc2.weight)
        nn.init.zeros_(self.fc2.bias)

    def forward(self, x: Tensor, members: Tensor) -> Tensor:
        contrast = maximum(members - x[:, :, None], 2)
        return self.fc2(self.fc1(torch.cat([x, contrast], -1)).relu())


class DeformableGroupVectorAttention(nn.Module):
    """Attention with a weight for each channel, over the members of a group that is moved and stretched.

    Args:
        width: channels d.
        num_neighbours: members k of a group.
        deform: learn shift and scale; otherwise the group is the k nearest points.

    Shape:
        points (B, n, 3) in metres and features (B, n, d) to (B, n, d). At least 3 points.
    """

    def __init__(self, width: int, num_neighbours: int = 16, deform: bool = True):
        super().__init__()
        self.num_neighbours = num_neighbours
        self.group_reg = GroupRegression(width) if deform else None
        self.w_q = nn.Linear(width, width, bias=False)
        self.w_k = nn.Linear(width, width, bias=False)
        self.w_v = nn.Linear(width, width, bias=False)
        self.proj = nn.Linear(width, width)
        self.pos = nn.Sequential(nn.Linear(3, width, bias=False), nn.ReLU(), nn.Linear(width, width, bias=False))
        self.attn = nn.Sequential(nn.Linear(width, width, bias=False), nn.ReLU(), nn.Linear(width, width, bias=False))

    def forward(self, points: Tensor, x: Tensor) -> Tensor:
        # Keys and values have no bias, so that they may be interpolated instead of the features that they are made of:
        # a point has one of each, and not one in every group.
        described = F.linear(x, torch.cat([self.w_k.weight, self.w_v.weight]))
        places, members = self._group(points, x, described)
        keys, values = members.chunk(2, -1)  # (B, n, k, d)
        position = self.pos(points[:, :, None] - places)
        logits = self.attn(self.w_q(x)[:, :, None] - keys + position)
        weights = (logits / math.sqrt(x.shape[-1])).softmax(2)
        return self.proj((weights * (values + position)).sum(2))

    def _group(self, points: Tensor, x: Tensor, described: Tensor) -> tuple[Tensor, Tensor]:
        """Places (B, n, k, 3) of the members of each point's group, and what of ``described`` (B, n, c) is there,
        (B, n, k, c)."""
        squared, indices = knn(min(self.num_neighbours, points.shape[1]), points, points)
        nearest = rows(points, indices)
        if self.group_reg is None:
            return nearest, rows(described, indices)
        shift, scale = self.group_reg(x, rows(x, indices)).split(3, -1)
        extent = squared[..., -1:].sqrt()  # to the furthest member; no gradient
        centre = points + extent * shift.tanh()
        stretch = (_MAX_LOG_SCALE * scale.tanh()).exp()
        places = centre[:, :, None] + stretch[:, :, None] * (nearest - points[:, :, None])
        return places, sample_features(places, points, described)


def sample_features(places: Tensor, points: Tensor, x: Tensor) -> Tensor:
    """Features at any place, from the three nearest points, weighted by 1 / (squared distance + (1 cm)^2).

    Gradients reach the places and the points through the weights; which points are nearest has none.

    Args:
        places: (B, n, k, 3).
        points: (B, m, 3), at least 3 of them.
        x: (B, m, d).

    Returns:
        (B, n, k, d).
    """
    flat = places.flatten(1, 2)
    _, indices = three_nn(flat, points)
    near = rows(points, indices)  # (B, n * k, 3 points, xyz)
    weights = 1 / ((flat[:, :, None] - near).square().sum(-1) + _FLOOR)
    weights = weights / weights.sum(-1, keepdim=True)
    return weighted_rows(x, indices, weights).unflatten(1, places.shape[1:3])


class FeaturePropagationMixing(nn.Module):
    """What the paper's ablation puts in the attention's place: the features of the three nearest others, and a layer.

    A point is not its own neighbour here: interpolated from itself it would learn nothing about the others.

    Args:
        width: channels d.

    Shape:
        points (B, n, 3) and features (B, n, d) to (B, n, d). At least 4 points.
    """

    def __init__(self, width: int):
        super().__init__()
        self.proj = nn.Linear(2 * width, width)

    def forward(self, points: Tensor, x: Tensor) -> Tensor:
        squared, indices = knn(4, points, points)
        weights = 1 / (squared[..., 1:].sqrt() + 1e-8)
        around = three_interpolate(x.mT, indices[..., 1:], weights / weights.sum(-1, keepdim=True)).mT
        return self.proj(torch.cat([x, around], -1))


class AdaFormerBlock(nn.Module):
    """Attention and an MLP, both on normalised features and added to them.

    Args:
        width: channels d.
        num_neighbours: members of a group.
        deform: as in :class:`DeformableGroupVectorAttention`.
        attention: ``"vector"``, or ``"fp"`` for the paper's ablation.
        mlp_ratio: hidden channels of the MLP in units of d.
    """

    def __init__(
        self,
        width: int,
        num_neighbours: int = 16,
        deform: bool = True,
        attention: Literal["vector", "fp"] = "vector",
        mlp_ratio: int = 2,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        if attention == "vector":
            self.attn: nn.Module = DeformableGroupVectorAttention(width, num_neighbours, deform)
        elif attention == "fp":
            self.attn = FeaturePropagationMixing(width)
        else:
            raise ValueError(f'attention is "vector" or "fp", not {attention!r}')
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width))

    def forward(self, points: Tensor, x: Tensor) -> Tensor:
        x = x + self.attn(points, self.norm1(x))
        return x + self.mlp(self.norm2(x))


class AdaFormerStage(nn.Module):
    """A set abstraction and a block.

    Args:
        radius: of the balls, metres.
        num_samples: members of a ball.
        channels: of the input features and of the abstraction's layers.
        fps: sample by furthest points, else take the first.
        block: options of :class:`AdaFormerBlock`.
    """

    def __init__(self, radius: float, num_samples: int, channels: Sequence[int], fps: bool, **block):
        super().__init__()
        self.radius, self.num_samples, self.fps = radius, num_samples, fps
        self.sa = SharedMLP([channels[0] + 3, *channels[1:]])
        self.block = AdaFormerBlock(channels[-1], **block)

    def forward(self, xyz: Tensor, features: Tensor | None, num_points: int) -> tuple[Tensor, Tensor, Tensor]:
        indices = sample_points(xyz, num_points, self.fps)
        centres = gather_points(xyz.mT, indices).mT.contiguous()
        pooled = pooled_groups(self.sa, xyz, features, centres, self.radius, self.num_samples)
        return centres, self.block(centres, pooled.mT).mT, indices


class AdaFormer(nn.Module):
    """Three stages, each with half of the points of the one before.

    Args:
        in_channels: features C of a point besides its position.
        dims: channels of the abstraction's layers, for each stage.
        radii: of the balls, metres, for each stage.
        num_samples: members of a ball.
        num_neighbours: members of an attention's group.
        deform: learn where the groups lie (the paper's group regression).
        attention: ``"vector"``, or ``"fp"`` for the paper's ablation.
        fps: the first stage samples by furthest points, and later ones take the first of these, which are furthest from
            each other again. Otherwise all take the first points, which trackers draw at random.
        identity_blocks: the blocks' last layers begin with zeros, so that an untrained backbone is a PointNet++; short
            runs get further. Otherwise they begin as any layer does.

    Shape:
        points (B, N, 3 + C) and the number of points of each stage to :class:`.levels.PointLevels`.
    """

    def __init__(
        self,
        in_channels: int = 0,
        dims: Sequence[Sequence[int]] = ((64, 64, 128), (128, 128, 256), (256, 256, 256)),
        radii: Sequence[float] = (0.3, 0.5, 0.7),
        num_samples: int = 32,
        num_neighbours: int = 16,
        deform: bool = True,
        attention: Literal["vector", "fp"] = "vector",
        fps: bool = True,
        identity_blocks: bool = False,
    ):
        super().__init__()
        widths = [in_channels, *(stage[-1] for stage in dims)]
        self.out_channels = widths[-1]
        self.stages = nn.ModuleList(
            AdaFormerStage(
                radius,
                num_samples,
                [width, *stage],
                fps=fps and number == 0,
                num_neighbours=num_neighbours,
                deform=deform,
                attention=attention,
            )
            for number, (radius, width, stage) in enumerate(zip(radii, widths, dims, strict=False))
        )
        if identity_blocks:
            for stage in self.stages:
                for layer in (stage.block.attn.proj, stage.block.mlp[-1]):
                    nn.init.zeros_(layer.weight)
                    nn.init.zeros_(layer.bias)

    def forward(self, points: Tensor, num_points: Sequence[int]) -> PointLevels:
        levels = PointLevels.of_input(points)
        for stage, count in zip(self.stages, num_points, strict=True):
            levels.append(*stage(levels.xyz[-1], levels.features[-1], count))
        return levels
