"""A cube of light seen by rough surfaces: each texel of the result is a sum of texels around it, with fixed weights.

The weights are ``kernel(<V, L>) * area(L)``, and the kernel is the same for every pair of texels that a rotation of the
cube maps onto another. So only the rows of a quarter of one face are kept, and the 24 rotations that bring it
everywhere act on the light: memory is a 24th, and one product serves all of them. The kernel is symmetric, so that the
adjoint needs no second matrix. Only where the published weights must be met to their last digits are all rows kept.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from perception.radiance.cubemap import face_places, texel_directions, texel_points

DIFFUSE_LIMIT = 0.999  # largest cosine, as in the published filter
CUTOFF = 0.99  # share of the lobe that is summed
DENSE = 0.1  # share of non-zero weights from which a full matrix is kept
TILE = 16  # side of the blocks of texels that are compared with each other at once
COLUMNS = 24  # of the light's turned copies that are multiplied at once

Area = Literal["released", "exact"]
Kernel = Callable[[Tensor], Tensor]
Pairs = Callable[[Tensor, Tensor], Tensor]
"""Weights (R, C), without areas, of the texels in directions (C, 3) for those in directions (R, 3)."""


def texel_areas(size: int, kind: Area = "released") -> Tensor:
    """Solid angles (size, size) of the texels of a face.

    Args:
        size: of the face.
        kind: ``"exact"``, or the published filter's, which are those of texels one place beside and come to 1.15
            spheres at 64.
    """
    half = size / 2
    if kind == "released":
        offset = (torch.arange(size, dtype=torch.float64) - size // 2).abs()
        one = ((offset + 1) / half).atan() - (offset / half).atan()
        return one[:, None] * one[None]
    edge = torch.arange(size + 1, dtype=torch.float64) / half - 1
    corner = torch.atan2(edge[:, None] * edge[None], (edge[:, None] ** 2 + edge[None] ** 2 + 1).sqrt())
    return corner[1:, 1:] - corner[:-1, 1:] - corner[1:, :-1] + corner[:-1, :-1]


def ggx(cosine: Tensor, roughness: float) -> Tensor:
    """Density of GGX's half vectors, with alpha = roughness squared, at a cosine to the normal."""
    squared = roughness**4
    return squared / (math.pi * ((cosine * squared - cosine) * cosine + 1) ** 2)


@lru_cache(64)
def lobe_bound(roughness: float, cutoff: float = CUTOFF) -> float:
    """Cosine below which texels do not count: where the running sum of the density over a million equal steps of the
    angle reaches ``cutoff`` of the whole.

    Example:
        >>> round(lobe_bound(0.5), 6)
        0.446214
    """
    cosine = torch.linspace(0, math.pi / 2, 1_000_000, dtype=torch.float64).cos()
    total = ggx(cosine, roughness).cumsum(0)
    return float(cosine[int((total >= total[-1] * cutoff).nonzero()[0])])


def specular_kernel(roughness: float) -> tuple[Kernel, float]:
    """Kernel of a rough mirror seen from its normal, and the cosine below which it is 0."""
    bound = lobe_bound(roughness)

    def kernel(cosine: Tensor) -> Tensor:
        half = ((1 + cosine.clamp(-1, 1)) / 2).sqrt()
        return torch.where(cosine >= bound, cosine * ggx(half, roughness) / 4, 0)

    return kernel, bound


def rounded_specular(roughness: float) -> Pairs:
    """:func:`specular_kernel` with the digits of the published filter, in single precision and its order of operations.

    The density of a sharp lobe is a difference of numbers close to 1, so that rounding changes its weights by some
    thousandths, and not in the same way for pairs that a rotation maps onto each other.
    """
    bound = torch.tensor(lobe_bound(roughness), dtype=torch.float32)
    alpha = torch.tensor(roughness, dtype=torch.float32) ** 2
    squared = alpha * alpha

    def pairs(own: Tensor, others: Tensor) -> Tensor:
        own = own[:, None]
        cosine = _rounded_dot(own, others)
        towards = _rounded_dot(own, _rounded_unit(others + own)).clamp(0, 1)
        narrow = (towards * squared - towards) * towards + 1
        density = squared / (narrow * narrow * math.pi)
        return torch.where(cosine >= bound, cosine * density / 4, 0)

    return pairs


def _rounded_dot(a: Tensor, b: Tensor) -> Tensor:
    products = a * b
    return products[..., 0] + products[..., 1] + products[..., 2]


def _rounded_unit(vectors: Tensor) -> Tensor:
    # torch's own root of single numbers can be off by the last digit.
    return vectors / _rounded_dot(vectors, vectors).double().sqrt().float()[..., None]


def diffuse_kernel() -> tuple[Kernel, float]:
    """Kernel of a matt surface."""
    return lambda cosine: cosine.clamp(0, DIFFUSE_LIMIT) / 3.141592, 0.0


class CubeFilter:
    """Sums of a cube's texels with fixed weights.

    Args:
        size: N of the faces; even.
        kernel, bound: weight of a pair by the cosine between its texels; 0 below the bound.
        area: of texels.
        normalise: divide by the sum of the weights.
        device: on which it works.
        pairs: weights that depend on more than the cosine, in place of the kernel's; all of them are kept, as a sparse
            matrix.
    """

    def __init__(
        self,
        size: int,
        kernel: Kernel,
        bound: float,
        *,
        area: Area,
        normalise: bool,
        device: torch.device | str = "cpu",
        pairs: Pairs | None = None,
    ):
        self.size = size
        self.all = None
        if pairs is None:
            self.turns = _turns(size).to(device)  # (24, 6 N N)
            self.rows = _quarter(size).to(device)  # (N N / 4,)
            directions = texel_directions(size, dtype=torch.float64).view(-1, 3)  # sharp lobes cancel digits
            weights = _weights(size, lambda own, others: kernel(own @ others.T), bound, _quarter(size), directions)
            self.weights = weights.to(device)
        else:
            everywhere = torch.arange(6 * size * size)
            directions = _rounded_unit(texel_points(size).float().view(-1, 3))
            weights = _weights(size, pairs, bound, everywhere, directions)
            self.all = tuple(matrix.to(device) for matrix in (weights, weights.to_sparse_coo().T.to_sparse_csr()))
        self.area = texel_areas(size, area).float().to(device).expand(6, size, size).reshape(-1, 1).contiguous()
        total = self.multiply(self.area)
        self.scale = 1 / total if normalise else torch.ones_like(total)

    def multiply(self, texels: Tensor, transposed: bool = False) -> Tensor:
        """The matrix of the weights, or its transpose, times (6 N N, C)."""
        if self.all is not None:
            return self.all[transposed] @ texels
        result, channels = torch.empty_like(texels), texels.shape[1]
        for turns in self.turns.split(max(1, COLUMNS // channels) if self.size >= 128 else len(self.turns)):
            turned = texels[turns.T].reshape(len(texels), -1)  # (6 N N, T C)
            summed = (self.weights @ turned).view(len(self.rows), len(turns), channels)
            result[turns[:, self.rows].T] = summed
        return result

    def __call__(self, texels: Tensor) -> Tensor:
        """Filter (6, N, N, C)."""
        return _Filter.apply(texels, self)


class _Filter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, texels: Tensor, filter: CubeFilter) -> Tensor:
        ctx.filter = filter
        flat = texels.reshape(-1, texels.shape[3]).to(filter.area)
        return (filter.multiply(flat * filter.area) * filter.scale).view_as(texels).to(texels)

    @staticmethod
    def backward(ctx, grad: Tensor):
        flat = grad.reshape(-1, grad.shape[3]).to(ctx.filter.area)
        moved = ctx.filter.multiply(flat * ctx.filter.scale, transposed=True) * ctx.filter.area
        return moved.view_as(grad).to(grad), None


@lru_cache(16)
def _turns(size: int) -> Tensor:
    """Number (24, 6 N N) of the texel onto which each rotation of the cube maps each texel."""
    points = texel_points(size).reshape(-1, 3)
    found = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            turn = torch.zeros(3, 3, dtype=torch.float64)
            for row, (column, sign) in enumerate(zip(order, signs)):
                turn[row, column] = sign
            if torch.linalg.det(turn) > 0:
                face, x, y = face_places(points @ turn.T)
                column, row = (((v + 1) * size / 2).floor().long() for v in (x, y))
                found.append((face * size + row) * size + column)
    return torch.stack(found)


def _quarter(size: int) -> Tensor:
    """Numbers of the texels of a quarter of the first face, in blocks."""
    return torch.arange(size * size).view(size, size)[: size // 2, : size // 2].reshape(-1)


def _weights(size: int, pairs: Pairs, bound: float, rows: Tensor, directions: Tensor) -> Tensor:
    """Rows (R, 6 N N) of the weights' matrix; sparse where most are 0."""
    if size <= 2 * TILE:
        full = pairs(directions[rows], directions).float()
        return full if float((full != 0).float().mean()) > DENSE else full.to_sparse_csr()
    # Only blocks that are near enough are compared.
    blocks = torch.arange(6 * size * size).view(6, size // TILE, TILE, size // TILE, TILE)
    blocks = blocks.permute(0, 1, 3, 2, 4).reshape(-1, TILE * TILE)
    centres = torch.nn.functional.normalize(directions[blocks].mean(1), dim=-1)
    reach = (directions[blocks] * centres[:, None]).sum(-1).amin(1).clamp(-1, 1).acos()
    quarter = torch.zeros(len(directions), dtype=torch.long)
    quarter[rows] = torch.arange(len(rows)) + 1
    parts = []
    for own, block in enumerate(blocks):
        if not int(quarter[block[0]]):
            continue
        if not bool((quarter[block] > 0).all()):
            raise ValueError(f"faces of {size} texels have no quarter of whole blocks of {TILE}")
        angle = (centres @ centres[own]).clamp(-1, 1).acos()
        near = blocks[angle <= math.acos(bound) + reach + reach[own] + 1e-3].reshape(-1)
        values = pairs(directions[block], directions[near])
        row, column = values.nonzero(as_tuple=True)
        parts.append((quarter[block][row] - 1, near[column], values[row, column].float()))
    row, column, value = (torch.cat(part) for part in zip(*parts))
    order = torch.argsort(row * len(directions) + column)
    row, column, value = row[order], column[order], value[order]
    start = torch.zeros(len(rows) + 1, dtype=torch.long)
    start[1:] = torch.bincount(row, minlength=len(rows)).cumsum(0)
    with warnings.catch_warnings():  # torch calls the format new, and proposes a check that was made above
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(start.int(), column.int(), value, (len(rows), len(directions)))
