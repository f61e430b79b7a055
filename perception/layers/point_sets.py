"""PointNet++'s building blocks (arXiv 1706.02413), with the parameter names of ``pointnet2_ops_lib``."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perception.ops.ball_query import ball_query
from perception.ops.furthest_point_sample import furthest_point_sample
from perception.ops.gather_points import gather_points
from perception.ops.group_points import group_points
from perception.ops.three_interpolate import three_interpolate
from perception.ops.three_nn import three_nn


class _Norm(nn.Sequential):
    """A norm under the name ``bn``, as the published keys nest it."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.add_module("bn", norm)


class PointwiseConv(nn.Sequential):
    """A 1 x 1 convolution with batch norm and ReLU, or without both and then with a bias of 0.

    Args:
        conv: ``nn.Conv1d`` or ``nn.Conv2d``.
        in_channels: of the input.
        out_channels: of the output.
        norm: whether batch norm and ReLU follow.
    """

    def __init__(self, conv: type[nn.Conv1d | nn.Conv2d], in_channels: int, out_channels: int, norm: bool = True):
        super().__init__()
        self.add_module("conv", conv(in_channels, out_channels, 1, bias=not norm))
        nn.init.kaiming_normal_(self.conv.weight)
        if norm:
            self.add_module("bn", _Norm((nn.BatchNorm2d if conv is nn.Conv2d else nn.BatchNorm1d)(out_channels)))
            self.add_module("activation", nn.ReLU(inplace=True))
        else:
            nn.init.zeros_(self.conv.bias)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight (out, in) and bias (out,) of convolution and batch norm as one layer, which they are in evaluation."""
        norm = self.bn.bn
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        return self.conv.weight.flatten(1) * scale[:, None], norm.bias - norm.running_mean * scale


class SharedMLP(nn.Sequential):
    """Layers ``layer0``, ``layer1``, ... applied to every member of every group.

    Args:
        channels: of the input and of every layer.

    Shape:
        (B, channels[0], M, S) to (B, channels[-1], M, S).
    """

    def __init__(self, channels: Sequence[int]):
        super().__init__()
        for number, (inner, outer) in enumerate(itertools.pairwise(channels)):
            self.add_module(f"layer{number}", PointwiseConv(nn.Conv2d, inner, outer))


def conv1d_stack(channels: Sequence[int], out_channels: int | None = None) -> nn.Sequential:
    """Pointwise layers of a sequence of points.

    Args:
        channels: of the input and of the layers with batch norm and ReLU.
        out_channels: of a last layer with neither.
    """
    layers = [PointwiseConv(nn.Conv1d, inner, outer) for inner, outer in itertools.pairwise(channels)]
    if out_channels is not None:
        layers.append(PointwiseConv(nn.Conv1d, channels[-1], out_channels, norm=False))
    return nn.Sequential(*layers)


class Sampled(NamedTuple):
    """A subset of points with features."""

    xyz: Tensor
    """(B, M, 3)"""
    features: Tensor
    """(B, C, M)"""
    indices: Tensor
    """(B, M) int64 into the points that were sampled from."""


def maximum(x: Tensor, dim: int) -> Tensor:
    """Maximum over a dimension, whose gradient goes to the first of equal members, as that of max-pooling does.

    ``amax`` would share it among them; it is taken where there is no gradient, as it is quicker there.
    """
    return x.max(dim).values if x.requires_grad else x.amax(dim)


def ball_groups(
    xyz: Tensor,
    features: Tensor | None,
    centres: Tensor,
    radius: float,
    num_samples: int,
    normalize_xyz: bool = False,
) -> Tensor:
    """Members of the ball around each centre: positions relative to it, then their features.

    A centre without any member gets point 0, ``num_samples`` times, as pointnet2_ops does.

    Args:
        xyz: (B, N, 3), metres.
        features: (B, C, N).
        centres: (B, M, 3).
        radius: of the balls; members are strictly nearer.
        num_samples: members of a ball, S: the first in the order of the points, the first again where there are fewer.
        normalize_xyz: relative positions in units of the radius.

    Returns:
        (B, 3 + C, M, S).
    """
    indices = ball_query(xyz, centres, 0.0, radius, num_samples).clamp(min=0)
    relative = group_points(xyz.mT, indices) - centres.mT[..., None]
    if normalize_xyz:
        relative = relative / radius
    return relative if features is None else torch.cat([relative, group_points(features, indices)], 1)


def pooled_groups(
    mlp: SharedMLP,
    xyz: Tensor,
    features: Tensor | None,
    centres: Tensor,
    radius: float,
    num_samples: int,
    normalize_xyz: bool = False,
) -> Tensor:
    """Maximum of ``mlp`` over the members of :func:`ball_groups`, (B, out, M).

    Its first layer is linear in a member and in the centre: where that is less work, it sees every point once, and not
    in every group that the point belongs to. In evaluation, members lie in rows and batch norm is part of the layers.
    """
    first, *others = mlp
    if mlp.training and (features is None or 2 * features.shape[1] < first.conv.out_channels):
        return maximum(mlp(ball_groups(xyz, features, centres, radius, num_samples, normalize_xyz)), -1)
    indices = ball_query(xyz, centres, 0.0, radius, num_samples).clamp(min=0)
    if normalize_xyz:
        xyz, centres = xyz / radius, centres / radius
    if mlp.training:
        points = xyz.mT if features is None else torch.cat([xyz.mT, features], 1)
        weight = first.conv.weight.flatten(1)
        x = group_points(weight @ points, indices) - (weight[:, :3] @ centres.mT)[..., None]
        x = first.activation(first.bn(x))
        for layer in others:
            x = layer(x)
        return maximum(x, -1)
    points = xyz if features is None else torch.cat([xyz, features.mT], -1)
    weight, bias = first.folded()
    x = rows(F.linear(points, weight), indices) + (bias - F.linear(centres, weight[:, :3]))[:, :, None]
    return maximum(evaluated_layers(others, x.relu_()), 2).mT


def evaluated_layers(layers: Sequence[PointwiseConv], x: Tensor) -> Tensor:
    """Layers with batch norm, in evaluation, on rows (..., channels)."""
    for layer in layers:
        x = F.linear(x, *layer.folded()).relu_()
    return x


def rows(x: Tensor, indices: Tensor) -> Tensor:
    """Rows (B, ..., C) of x (B, N, C) at indices (B, ...)."""
    return x.flatten(0, 1)[_flat_indices(x, indices)]


def weighted_rows(x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums (B, M, C) of rows of x (B, N, C) at indices (B, M, K) with weights (B, M, K).

    The rows themselves, K times as many numbers, are at no time held in memory.
    """
    flat = _flat_indices(x, indices).flatten(0, 1)
    summed = F.embedding_bag(flat, x.flatten(0, 1), mode="sum", per_sample_weights=weights.flatten(0, 1))
    return summed.unflatten(0, indices.shape[:2])


def _flat_indices(x: Tensor, indices: Tensor) -> Tensor:
    start = torch.arange(len(x), device=x.device) * x.shape[1]
    return indices + start.view(-1, *[1] * (indices.dim() - 1))


class SetAbstraction(nn.Module):
    """Samples centres, gathers the ball around each and takes the maximum of a shared MLP over its members.

    Args:
        radius: of the balls, metres.
        num_samples: members of a ball.
        channels: of the input features and of the layers of the MLP; 3 is added to the first for the positions.
        fps: centres by furthest point sampling (points within 3 cm of the origin count as padding), else the first.
        normalize_xyz: relative positions in units of the radius.

    Shape:
        xyz (B, N, 3) and features (B, C, N) or None to :class:`Sampled` of M points.
    """

    def __init__(
        self,
        radius: float,
        num_samples: int,
        channels: Sequence[int],
        fps: bool = False,
        normalize_xyz: bool = False,
    ):
        super().__init__()
        self.radius, self.num_samples, self.fps, self.normalize_xyz = radius, num_samples, fps, normalize_xyz
        self.mlps = nn.ModuleList([SharedMLP([channels[0] + 3, *channels[1:]])])

    def forward(self, xyz: Tensor, features: Tensor | None, num_points: int) -> Sampled:
        indices = sample_points(xyz, num_points, self.fps)
        centres = gather_points(xyz.mT, indices).mT.contiguous()
        pooled = pooled_groups(self.mlps[0], xyz, features, centres, self.radius, self.num_samples, self.normalize_xyz)
        return Sampled(centres, pooled, indices)


def sample_points(xyz: Tensor, num_points: int, fps: bool) -> Tensor:
    """Indices (B, M) of points (B, N, 3): by furthest point sampling, or the first.

    Raises:
        ValueError: there are fewer points.
    """
    batch, count = xyz.shape[:2]
    if num_points > count:
        raise ValueError(f"{num_points} points cannot be sampled from {count}")
    if fps:
        return furthest_point_sample(xyz, num_points, skip_near_origin=True)
    return torch.arange(num_points, device=xyz.device).expand(batch, -1)


class FeaturePropagation(nn.Module):
    """Features of a coarse set at the points of a finer one, put before the finer one's own, through a shared MLP.

    Args:
        channels: of both together and of the layers.

    Shape:
        fine xyz (B, N, 3), coarse xyz (B, M, 3), fine features (B, C1, N) or None, coarse features (B, C2, M) to
        (B, channels[-1], N).
    """

    def __init__(self, channels: Sequence[int]):
        super().__init__()
        self.mlp = SharedMLP(channels)

    def forward(self, fine: Tensor, coarse: Tensor, fine_features: Tensor | None, coarse_features: Tensor) -> Tensor:
        x = interpolate_features(fine, coarse, coarse_features)
        if fine_features is not None:
            x = torch.cat([x, fine_features], 1)
        return self.mlp(x[..., None])[..., 0]


def interpolate_features(targets: Tensor, sources: Tensor, features: Tensor) -> Tensor:
    """Mean of the features of the three nearest sources, weighted by 1 / (distance + 1e-8). Positions get no gradient.

    Args:
        targets: (B, N, 3).
        sources: (B, M, 3), at least 3 of them.
        features: (B, C, M).

    Returns:
        (B, C, N).
    """
    squared, indices = three_nn(targets, sources)
    weights = 1 / (squared.sqrt() + 1e-8)
    return three_interpolate(features, indices, weights / weights.sum(-1, keepdim=True))
