"""Volume rendering of a sparse voxel field with spherical harmonics along rays, and its closed-form gradient."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from perception.ops.backend import native
from perception.ops.registration import FULL, native_kernel, no_second_derivative
from perception.ops.sample_rays import ragged_range

__all__ = ["Field", "March", "Rays", "march_gradient", "march_rays", "sparse_trilinear"]


class Field(NamedTuple):
    r"""A sparse voxel field.

    Args:
        links: row of each voxel in the tables, negative where it is empty; int32 of shape :math:`(X, Y, Z)`.
        density: of shape :math:`(V, 1)`.
        sh: coefficients of shape :math:`(V, 3 B)`, column :math:`B c + l` for colour c and basis function l.
        levels: 0 for cells (voxel i to i + 1 along each axis) with a voxel at any of their corners, k + 1 where the
            aligned block of :math:`2^k` cells a side is empty; uint8 of shape :math:`(X, Y, Z)`. It changes no result.
    """

    links: Tensor
    density: Tensor
    sh: Tensor
    levels: Tensor


class Rays(NamedTuple):
    r"""Rays in voxel coordinates.

    Args:
        origin: of shape :math:`(N, 3)`; whole numbers are centres of voxels.
        direction: of length 1 in voxels, of shape :math:`(N, 3)`.
        basis: spherical basis functions at the viewing direction, of shape :math:`(N, B)`.
        length: of a voxel along the ray in world units, of shape :math:`(N,)`.
    """

    origin: Tensor
    direction: Tensor
    basis: Tensor
    length: Tensor


class March(NamedTuple):
    """How rays are marched.

    Args:
        step: between samples, voxels.
        near: distance of the first sample at least, world units.
        background: brightness behind the field.
        sigma_thresh: samples of no more density are skipped.
        stop_thresh: a ray ends behind the sample that leaves less light than this; what is left is dropped.
    """

    step: float = 0.5
    near: float = 0.0
    background: float = 0.5
    sigma_thresh: float = 1e-8
    stop_thresh: float = 1e-7


def march_rays(field: Field, rays: Rays, march: March) -> tuple[Tensor, Tensor, Tensor]:
    r"""Colours of rays: samples at ``t0 + k step`` between a ray's entry and exit, without jitter (Plenoxels,
    arXiv:2112.05131, "cuvol").

    Samples of the density :math:`\sigma`, world length :math:`\delta` and colour
    :math:`c = \max(0, \sum_l Y_l k_{c,l} + 1/2)` add :math:`T (1 - e^{-\delta\sigma}) c`. Colours are differentiable by
    density and coefficients, the other results are not.

    Args:
        field: of V voxels.
        rays: N of them.
        march: how.

    Returns:
        Colours :math:`(N, 3)`, the light that is left of each ray :math:`(N,)`, 0 where it was stopped, and the sum of
        weights times distance :math:`(N,)`, world units.
    """
    if native("march_rays", field.density, field.sh, *rays):
        rgb, left, depth = torch.ops.perception.march_rays(*field, *rays, *march)
        return rgb, left.detach(), depth.detach()
    found = _sample(field, rays, march)
    rgb, left, depth = _composite(found, rays, march)
    return rgb, left.detach(), depth.detach()


@torch.no_grad()
def march_gradient(
    field: Field, rays: Rays, march: March, rgb: Tensor, grad_rgb: Tensor, sparsity: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The gradient of colours by the field, and which voxels it reaches.

    Args:
        field, rays, march: as they were for :func:`march_rays`.
        rgb: its colours.
        grad_rgb: of a loss by them, of shape :math:`(N, 3)`.
        sparsity: weight of :math:`\sum \log(1 + 2 \sigma^2)` over all samples that are seen, a part of the loss.

    Returns:
        Gradients :math:`(V, 1)` and :math:`(V, 3 B)`, and the voxels beside any sample that is seen, bool :math:`(V,)`.
    """
    if native("march_rays", field.density, field.sh, *rays, rgb, grad_rgb):
        return torch.ops.perception.march_rays_backward(grad_rgb, rgb, *field, *rays, *march, sparsity)
    with torch.enable_grad():
        tables = [table.detach().requires_grad_() for table in (field.density, field.sh)]
        found = _sample(field._replace(density=tables[0], sh=tables[1]), rays, march)
        colours, _, _ = _composite(found, rays, march)
        sigma = found.sigma[found.seen(march)]
        loss = (colours * grad_rgb).sum() + sparsity * torch.log1p(2 * sigma.square()).sum()
        density, sh = torch.autograd.grad(loss, tables)
    rows = found.rows[found.seen(march)]
    touched = torch.zeros(len(field.density), dtype=torch.bool, device=density.device)
    touched[rows[rows >= 0]] = True
    return density, sh, touched


def sparse_trilinear(links: Tensor, table: Tensor, position: Tensor) -> Tensor:
    r"""Values of a sparse field at points, 0 at empty corners, differentiable by the table.

    Args:
        links: of shape :math:`(X, Y, Z)`, see :class:`Field`.
        table: of shape :math:`(V, C)`.
        position: of shape :math:`(M, 3)`, in voxels; places outside take the value at the border.

    Returns:
        Tensor of shape :math:`(M, C)`.
    """
    rows, weight, _ = _corners(links, position)
    return _weigh(table, rows, weight)


def _corners(links: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (M, 8) of the voxels around points, negative where there is none, their weights, and the cells (M, 3)."""
    size = position.new_tensor(links.shape)
    position = position.clamp(min=0).minimum(size - 1)
    cell = position.floor().minimum(size - 2).clamp(min=0)
    upper = position - cell
    share = torch.stack([1 - upper, upper], 1)  # (M, 2, 3)
    first, last = cell.long(), torch.tensor(links.shape, device=links.device) - 1
    index = torch.stack([first, (first + 1).minimum(last)], 1)  # (M, 2, 3)
    weight = (share[:, :, None, None, 0] * share[:, None, :, None, 1] * share[:, None, None, :, 2]).reshape(-1, 8)
    i, j, k = (index[..., axis] for axis in range(3))
    rows = links[i[:, :, None, None], j[:, None, :, None], k[:, None, None, :]].reshape(-1, 8)  # (M, 2, 2, 2)
    return rows.long(), weight, first


def _weigh(table: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    """Sums of the rows (M, 8) of a table, without those that are negative."""
    if not len(table) or not len(rows):
        return table.new_zeros(len(rows), table.shape[1]) + 0 * table.sum()
    weight = weight.to(table.dtype) * (rows >= 0)
    return torch.nn.functional.embedding_bag(rows.clamp(min=0), table, mode="sum", per_sample_weights=weight)


class _Samples(NamedTuple):
    """Samples (M) whose density is above the threshold, ray by ray from near to far."""

    ray: Tensor  # (M,)
    place: Tensor  # (M,) in a matrix (N, L) of all
    shape: tuple[int, int]  # N, L
    t: Tensor  # (M,) voxels
    rows: Tensor  # (M, 8)
    sigma: Tensor  # (M,)
    sh: Tensor  # (M, 3 B)
    optical: Tensor  # (M,) length times density of the sample
    before: Tensor  # (M,) the same of all samples before it

    def seen(self, march: March) -> Tensor:
        """Those in front of the end of their ray, bool (M,)."""
        return torch.exp(-self.before) >= march.stop_thresh


@torch.no_grad()
def _reach(rays: Rays, shape: tuple[int, ...], march: March) -> tuple[Tensor, Tensor]:
    """Entry (N,) of rays into the grid in voxels, and the number of samples up to their exit."""
    size = rays.origin.new_tensor(shape)
    bounds = torch.stack([-0.5 - rays.origin, size - 0.5 - rays.origin]) / rays.direction  # (2, N, 3)
    moving = rays.direction != 0
    enter = torch.where(moving, bounds.amin(0), -torch.inf).amax(1)
    leave = torch.where(moving, bounds.amax(0), torch.inf).amin(1)
    beside = (~moving & ((rays.origin < -0.5) | (rays.origin > size - 0.5))).any(1)
    enter = torch.maximum(enter, march.near / rays.length)
    count = ((leave - enter) / march.step).floor() + 1
    return enter, torch.where(beside | ~(leave >= enter), 0, count).long()


def _sample(field: Field, rays: Rays, march: March) -> _Samples:
    enter, count = _reach(rays, tuple(field.links.shape), march)
    ray, number = ragged_range(count)
    t = enter[ray] + number.to(enter.dtype) * march.step
    position = rays.origin[ray] + t[:, None] * rays.direction[ray]
    rows, weight, cell = _corners(field.links, position)
    occupied = field.levels[cell[:, 0], cell[:, 1], cell[:, 2]] == 0
    ray, t, rows, weight = (x[occupied] for x in (ray, t, rows, weight))
    sigma = _weigh(field.density, rows, weight)[:, 0]
    dense = sigma > march.sigma_thresh
    ray, t, rows, weight, sigma = (x[dense] for x in (ray, t, rows, weight, sigma))
    per_ray = torch.bincount(ray, minlength=len(rays.origin))
    shape = (len(per_ray), int(per_ray.max()) if len(per_ray) else 0)
    place = ragged_range(per_ray)[1] + ray * shape[1]
    optical = sigma * rays.length[ray] * march.step
    along = optical.new_zeros(shape[0] * shape[1]).index_put((place,), optical).view(shape)
    before = (along.cumsum(1) - along).view(-1)[place]
    return _Samples(ray, place, shape, t, rows, sigma, _weigh(field.sh, rows, weight), optical, before)


def _composite(found: _Samples, rays: Rays, march: March) -> tuple[Tensor, Tensor, Tensor]:
    light = torch.exp(-found.before)
    weight = torch.where(found.seen(march), light * -torch.expm1(-found.optical), 0)
    basis = rays.basis[found.ray]
    coefficients = found.sh.view(len(found.sh), 3, basis.shape[1])  # (M, 3, B)
    colour = ((coefficients * basis[:, None]).sum(-1) + 0.5).clamp(min=0)
    rgb = rays.origin.new_zeros(found.shape[0], 3).index_add(0, found.ray, weight[:, None] * colour)
    distance = found.t * rays.length[found.ray]
    depth = rays.origin.new_zeros(found.shape[0]).index_add(0, found.ray, weight * distance)
    total = found.optical.new_zeros(found.shape[0]).index_add(0, found.ray, found.optical)
    left = torch.exp(-total)
    # Below the bound the rest is dropped, wherever on the ray that happened.
    left = torch.where(left < march.stop_thresh, 0, left)
    return rgb + left[:, None] * march.background, left, depth


_FIELD = "Tensor links, Tensor density, Tensor sh, Tensor levels"
_RAYS = "Tensor origin, Tensor direction, Tensor basis, Tensor length"
_MARCH = "float step, float near, float background, float sigma_thresh, float stop_thresh"


def _remember(ctx, inputs, output):
    ctx.save_for_backward(output[0], *inputs[:8])
    ctx.march = inputs[8:]
    ctx.mark_non_differentiable(output[1], output[2])


def _derivative(ctx, grad_rgb, *_):
    density, sh, _ = torch.ops.perception.march_rays_backward(
        grad_rgb.contiguous(), *ctx.saved_tensors, *ctx.march, 0.0
    )
    return None, density, sh, *(None for _ in range(10))


@native_kernel(
    f"march_rays({_FIELD}, {_RAYS}, {_MARCH}) -> (Tensor, Tensor, Tensor)",
    types=FULL,
    setup_context=_remember,
    backward=_derivative,
)
def _fake(links, density, sh, levels, origin, direction, basis, length, *march):
    return origin.new_empty(origin.shape[0], 3), origin.new_empty(origin.shape[0]), origin.new_empty(origin.shape[0])


@native_kernel(
    f"march_rays_backward(Tensor grad_rgb, Tensor rgb, {_FIELD}, {_RAYS}, {_MARCH}, float sparsity) "
    "-> (Tensor, Tensor, Tensor)",
    backward=no_second_derivative("march_rays"),
)
def _fake_backward(grad_rgb, rgb, links, density, sh, *rest):
    touched = density.new_empty(density.shape[0], dtype=torch.bool)
    return density.new_empty(density.shape), sh.new_empty(sh.shape), touched
