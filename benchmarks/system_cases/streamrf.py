"""StreamRF: rays through a sparse voxel field with spherical harmonics."""

import torch
from torch import nn

from perception.radiance.sparse_grid import SparseGrid
from system_cases import Core


def core(large: bool) -> Core:
    side, rays = (160, 4096) if large else (12, 24)
    places = torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, side),) * 3, indexing="ij"), -1)
    shell = (places.norm(dim=-1) - 0.6).abs() < 0.2
    voxels = int(shell.sum())
    grid = SparseGrid(shell, (1.0, 1.0, 1.0), density=10 * torch.rand(voxels, 1), sh=0.3 * torch.randn(voxels, 27))
    origins = torch.tensor([0.0, 0.0, -2.0]).expand(rays, 3).contiguous()
    directions = 0.3 * torch.randn(rays, 3) + torch.tensor([0.0, 0.0, 1.0])
    return Core(grid, (origins, directions), _loss)


def _loss(grid: nn.Module, origins, directions):
    colours, _, _ = grid.march(origins.detach(), directions.detach())
    return (colours - 0.3).square().mean()
