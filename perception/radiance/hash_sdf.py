"""A signed distance in a hash grid whose finer levels join in during training, with gradients by finite differences.

The geometry of RISE-SDF; after Neuralangelo (arXiv:2306.03092), whose finite differences span a cell of the finest
level that takes part.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.ops.hash_grid import HashGridLayout, hash_grid, hash_grid_layout
from perception.radiance.networks import MLP

CURVATURE_REACH = 1e-4  # of the second sample, world units
UNIT_EPS = 1e-6  # smallest length that a gradient is divided by
COSINE_LIMIT = 1 - 1e-6  # beyond it the arc cosine has no useful gradient


class ProgressiveHashGrid(nn.Module):
    """Features of points in [0, 1]^3: their coordinates in [-1, 1], and the levels of a hash grid that take part.

    Args:
        num_levels, base_resolution, per_level_scale, log2_table_size: see
            :func:`~perception.ops.hash_grid.hash_grid_layout`.
        features: per level.
        start_level: levels that take part from the first step on; by default all.
        start_step: after which further levels join.
        update_steps: steps from one level to the next.
        keep_levels: as in the released code, levels that once took part go on doing so when an earlier step is set, and
            only :attr:`cell` follows it. By default both follow the step.

    ``params`` is the flat vector of tiny-cuda-nn. Levels that do not take part yet give zeros, and cost nothing.
    """

    def __init__(
        self,
        num_levels: int = 16,
        features: int = 2,
        log2_table_size: int = 19,
        base_resolution: int = 32,
        per_level_scale: float = 1.447269237440378,
        start_level: int | None = None,
        start_step: int = 0,
        update_steps: int = 1,
        keep_levels: bool = False,
    ):
        super().__init__()
        self.layout = hash_grid_layout(num_levels, base_resolution, per_level_scale, log2_table_size)
        self.num_levels, self.features = num_levels, features
        self.base_resolution, self.per_level_scale = base_resolution, per_level_scale
        self.start_level = num_levels if start_level is None else start_level
        self.start_step, self.update_steps, self.keep_levels = start_step, update_steps, keep_levels
        self.level = self.levels_read = min(self.start_level, num_levels)
        self.params = nn.Parameter(torch.empty(self.layout.num_entries * features).uniform_(-1e-4, 1e-4))

    @property
    def out_features(self) -> int:
        """Numbers per point."""
        return 3 + self.num_levels * self.features

    def level_at(self, step: int) -> int:
        """How many levels take part at a step."""
        return min(self.start_level + max(step - self.start_step, 0) // self.update_steps, self.num_levels)

    def update_step(self, step: int) -> None:
        """Let the levels of a step take part."""
        self.level = self.level_at(step)
        self.levels_read = max(self.levels_read, self.level) if self.keep_levels else self.level

    @property
    def cell(self) -> float:
        """Side of a cell of the finest level that takes part, for a grid of side 1."""
        return 1 / (self.base_resolution * self.per_level_scale ** (self.level - 1))

    def forward(self, unit: Tensor) -> Tensor:
        """Features (N, 3 + L * F) of points (N, 3) in [0, 1]."""
        levels = self.levels_read
        part = HashGridLayout(*(entries[:levels] for entries in self.layout))
        part = part._replace(offsets=self.layout.offsets[: levels + 1])
        table = self.params[: part.num_entries * self.features].view(-1, self.features)
        read = hash_grid(unit, table, part)
        missing = (self.num_levels - levels) * self.features
        return torch.cat([unit * 2 - 1, F.pad(read, (0, missing))], -1)


class SDFSamples(NamedTuple):
    """The field at M points."""

    sdf: Tensor  # (M,) world units, negative inside
    gradient: Tensor  # (M, 3) of the distance by the place
    feature: Tensor  # (M, C), of which the first is the distance


class HashSDF(nn.Module):
    """A signed distance and features in the cube [-radius, radius]^3.

    Args:
        encoding: of points of the unit cube.
        radius: half the side of the cube, world units.
        out_features: C, the distance among them.
        width, depth: of the network's hidden layers.
        sphere_init: radius of the sphere at the beginning.
        weight_norm: of the network.
        gradient: by central differences over the cell of the grid, or exact.
    """

    def __init__(
        self,
        encoding: ProgressiveHashGrid,
        *,
        radius: float = 1.5,
        out_features: int = 48,
        width: int = 128,
        depth: int = 2,
        sphere_init: float = 0.5,
        weight_norm: bool = True,
        gradient: Literal["finite_difference", "analytic"] = "finite_difference",
    ):
        super().__init__()
        self.encoding, self.radius, self.gradient = encoding, radius, gradient
        self.network = MLP(
            encoding.out_features, out_features, width, depth, sphere_init=sphere_init, weight_norm=weight_norm
        )

    @property
    def eps(self) -> float:
        """Reach of the finite differences: a cell of the grid, world units."""
        return 2 * self.radius * self.encoding.cell

    def update_step(self, step: int) -> None:
        """Let the levels of a training step take part."""
        self.encoding.update_step(step)

    def features(self, points: Tensor) -> Tensor:
        """(M, C) at points (M, 3)."""
        return self.network(self.encoding((points + self.radius) / (2 * self.radius)))

    def distance(self, points: Tensor) -> Tensor:
        """(M,) at points (M, 3)."""
        return self.features(points)[:, 0]

    def forward(self, points: Tensor) -> SDFSamples:
        """Distance, gradient and features of points (M, 3)."""
        if self.gradient == "analytic":
            return self.analytic(points, create_graph=torch.is_grad_enabled())
        eps = self.eps
        # One pass over the points and their six neighbours.
        steps = torch.tensor([[0, 0, 0], *_axis_steps(eps)], dtype=points.dtype, device=points.device)
        around = (points[None] + steps[:, None]).clamp(-self.radius, self.radius)  # (7, M, 3)
        around[0] = points
        values = self.features(around.view(-1, 3)).unflatten(0, (7, len(points)))
        ahead, behind = values[1::2, :, 0], values[2::2, :, 0]
        return SDFSamples(values[0, :, 0], (0.5 * (ahead - behind) / eps).T, values[0])

    def analytic(self, points: Tensor, *, create_graph: bool) -> SDFSamples:
        """The same with the exact gradient, through which a loss can be derived where ``create_graph`` is set."""
        with torch.enable_grad():
            if not points.requires_grad:
                points = points.detach().requires_grad_()
            feature = self.features(points)
            sdf = feature[:, 0]
            (gradient,) = torch.autograd.grad(sdf.sum(), points, create_graph=create_graph)
        if not create_graph:
            sdf, feature = sdf.detach(), feature.detach()
        return SDFSamples(sdf, gradient, feature)

    def curvature(self, points: Tensor, gradient: Tensor, random: Tensor) -> Tensor:
        """Angle (M,), as a share of a half turn, between the normals at points and close beside them.

        Args:
            points: (M, 3).
            gradient: (M, 3) of the distance there.
            random: (M, 3) in [0, 1], from which the tangents are made along which the second points lie.
        """
        normal, direction = (F.normalize(vectors, dim=-1, eps=UNIT_EPS) for vectors in (gradient, random))
        beside = points + CURVATURE_REACH * torch.cross(normal, direction, dim=-1)
        found = self.analytic(beside, create_graph=torch.is_grad_enabled())
        second = F.normalize(found.gradient, dim=-1, eps=UNIT_EPS)
        cosine = (normal * second).sum(-1)
        return cosine.clamp(-COSINE_LIMIT, COSINE_LIMIT).acos() / math.pi


def _axis_steps(eps: float) -> list[list[float]]:
    steps = []
    for axis in range(3):
        for sign in (eps, -eps):
            step = [0.0, 0.0, 0.0]
            step[axis] = sign
            steps.append(step)
    return steps
