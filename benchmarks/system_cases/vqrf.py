"""VQRF: rays through DirectVoxGO's fine field, whose step all its stages share."""

import torch
from torch import nn

from perception.radiance.dvgo import DirectVoxGO
from system_cases import Core


def core(large: bool) -> Core:
    side, count = (160, 8192) if large else (16, 64)
    field = DirectVoxGO(
        (-1.0,) * 3,
        (1.0,) * 3,
        num_voxels=side**3,
        num_voxels_base=side**3,
        alpha_init=1e-2,
        fast_color_thres=1e-4,
        rgbnet_dim=12,
    )
    nn.init.uniform_(field.density.grid, -1.0, 3.0)
    nn.init.uniform_(field.k0.grid, -1.0, 1.0)
    # From a sphere around the field, towards places in it.
    origins = 3 * nn.functional.normalize(torch.randn(count, 3), dim=1)
    directions = nn.functional.normalize(torch.rand(count, 3) - 0.5 - origins, dim=1)
    return Core(field, (origins, directions), _loss)


def _loss(field, origins, directions):
    directions = directions.detach()
    outputs = field(origins.detach(), directions, directions, near=1.0)
    return (outputs["rgb_marched"] - 0.5).square().mean()
