"""4K-NeRF: a patch of rays through the forward-facing field, whose colours and depth the decoder enlarges."""

import torch
from torch import nn

from perception.radiance.mpi import DirectMPIGO
from projects.nerf_4k.decoder import SFTNet
from system_cases import Core


def core(large: bool) -> Core:
    side, depth, across = (64, 256, 384) if large else (8, 8, 16)
    encoder = DirectMPIGO((-1.0,) * 3, (1.0,) * 3, num_voxels=across**2 * depth, mpi_depth=depth)
    nn.init.uniform_(encoder.density.grid, -1.0, 3.0)
    nn.init.uniform_(encoder.k0.grid, -1.0, 1.0)
    decoder = SFTNet() if large else SFTNet(num_feat=8, num_block=1, num_grow_ch=4)
    rows, columns = torch.meshgrid(*(torch.linspace(-0.2, 0.2, side),) * 2, indexing="ij")
    origins = torch.stack([columns, rows, torch.full_like(rows, -1.0)], -1).reshape(-1, 3)
    directions = torch.tensor([0.2, -0.1, 2.0]).expand_as(origins)
    return Core(nn.ModuleDict({"encoder": encoder, "decoder": decoder}), (origins, directions), _loss)


def _loss(networks, origins, directions):
    rays = origins.detach(), directions.detach()
    rendered = networks["encoder"](*rays, nn.functional.normalize(rays[1], dim=1))
    side = round(len(origins) ** 0.5)
    colours, depth = (x.view(1, side, side, -1).movedim(3, 1) for x in (rendered.rgb_feature, rendered.depth))
    return (networks["decoder"](colours, depth) - 0.5).abs().mean()
