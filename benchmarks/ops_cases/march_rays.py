import torch

from ops_cases import Timing
from perception.ops.march_rays import March, march_gradient, march_rays
from perception.radiance.sparse_grid import SparseGrid

COUNT = 4096


def timings(large: bool, device: str) -> dict[str, Timing]:
    side = 160 if large else 96
    places = torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, side),) * 3, indexing="ij"), -1)
    shell = (places.norm(dim=-1) - 0.6).abs() < 0.1
    generator = torch.Generator().manual_seed(0)
    voxels = int(shell.sum())
    density = torch.full((voxels, 1), 30.0)
    sh = 0.3 * torch.randn(voxels, 27, generator=generator)
    grid = SparseGrid(shell, (1.0, 1.0, 1.0), density=density, sh=sh).to(device)
    grid.refresh()
    origins = torch.tensor([0.0, 0.0, -2.0]).expand(COUNT, 3).to(device)
    directions = torch.randn(COUNT, 3, generator=generator).mul(0.3).add(torch.tensor([0.0, 0.0, 1.0])).to(device)
    rays, march = grid.rays(origins, directions), March()
    field = grid.field._replace(density=grid.density.detach(), sh=grid.sh.detach())
    rgb = march_rays(field, rays, march)[0]
    return {
        f"march_rays {COUNT} rays, shell of {voxels} voxels in {side}^3": Timing(
            lambda: march_rays(field, rays, march), None
        ),
        f"march_gradient {COUNT} rays, shell of {voxels} voxels in {side}^3": Timing(
            lambda: march_gradient(field, rays, march, rgb, rgb), None
        ),
    }
