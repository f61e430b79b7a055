"""Gradient of the total variation of a sparse voxel field, in some of its cells."""

from __future__ import annotations

import torch
from torch import Tensor

from perception.ops.backend import native
from perception.ops.registration import FULL, native_kernel

__all__ = ["sparse_total_variation_add_grad_"]

REFERENCE_RESOLUTION = 256  # at which differences along an axis have the weight 1
SMALLEST = 1e-9  # added to the squared norm of the differences


@torch.no_grad()
def sparse_total_variation_add_grad_(
    links: Tensor,
    table: Tensor,
    grad: Tensor,
    touched: Tensor,
    cells: Tensor,
    weight: float,
    *,
    level_edges: bool = False,
    legacy: bool = False,
) -> None:
    r"""Add the gradient of a total variation to a gradient, in place (Plenoxels, arXiv:2112.05131).

    With the differences :math:`d_a = v_a - v_0` of a cell to its neighbours in +x, +y and +z, of each channel by
    itself, neighbour a receives :math:`w\,r_a d_a` and the cell minus the sum of them, where
    :math:`w = \mathrm{weight} / (\#\mathrm{cells} \sqrt{10^{-9} + \sum_a d_a^2})` and :math:`r_a` is the number of
    voxels along axis a over 256. (The norm is that of differences without :math:`r_a`.)

    Args:
        links: row of each voxel in the table, negative where it is empty; int32 of shape :math:`(X, Y, Z)`.
        table: values of shape :math:`(V, C)`.
        grad: added to, of the same shape, contiguous.
        touched: bool of shape :math:`(V,)`; set where a value other than 0 is added to a row.
        cells: flat numbers of voxels, int64 of shape :math:`(M,)`.
        weight: of the loss.
        level_edges: empty neighbours have the cell's own value, so that edges of the field cost nothing; otherwise
            they are 0, as empty cells are always.
        legacy: as the published kernels, which read row 0 behind the end of the grid, and with ``level_edges`` leave
            out the cell whose row is 0. Otherwise there is no difference across the end.
    """
    if native("sparse_total_variation_add_grad_", table, grad):
        torch.ops.perception.sparse_total_variation_add_grad_(
            links, table, grad, touched, cells, weight, level_edges, legacy
        )
        return
    if not len(cells) or not len(table):
        return
    num_x, num_y, num_z = links.shape
    flat = links.reshape(-1)
    x, y, z = cells // (num_y * num_z), cells // num_z % num_y, cells % num_z
    own = flat[cells].long()
    neighbours = []
    for _axis, (place, size, stride) in enumerate(((x, num_x, num_y * num_z), (y, num_y, num_z), (z, num_z, 1))):
        inside = place + 1 < size
        row = flat[torch.where(inside, cells + stride, 0)].long()
        neighbours.append(torch.where(inside, row, 0 if legacy else own))
    if level_edges and legacy:
        used = own != 0
        own, neighbours = own[used], [row[used] for row in neighbours]
    value = _values(table, own)
    differences = []
    for row in neighbours:
        other = _values(table, row)
        if level_edges:
            other = torch.where((row < 0)[:, None], value, other)
        differences.append(other - value)
    norm = (sum(difference.square() for difference in differences) + SMALLEST).sqrt()
    pulls = [
        difference * (weight / len(cells) * size / REFERENCE_RESOLUTION) / norm
        for difference, size in zip(differences, links.shape)
    ]
    for row, pull in (*zip(neighbours, pulls), (own, -sum(pulls))):
        there = row >= 0
        grad.index_add_(0, row[there], pull[there])
        touched[row[there & (pull != 0).any(1)]] = True


def _values(table: Tensor, row: Tensor) -> Tensor:
    return torch.where((row >= 0)[:, None], table[row.clamp(min=0)], 0)


@native_kernel(
    "sparse_total_variation_add_grad_(Tensor links, Tensor table, Tensor(a!) grad, Tensor(b!) touched, Tensor cells, "
    "float weight, bool level_edges, bool legacy) -> ()",
    types=FULL,
)
def _fake(links, table, grad, touched, cells, weight, level_edges, legacy):
    return None
