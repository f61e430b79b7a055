"""HBD-Net: fusion of a patch's pyramid with that of a crop of the image at half its size."""

import torch

from projects.hbd_net.fusion import InterLevelFusion
from system_cases import Core


def core(large: bool) -> Core:
    width, side = (256, 256) if large else (8, 32)
    maps = tuple(torch.randn(1, width, side // 2**k, side // 2**k) for k in (0, 1, 2, 3, 4) * 2)
    return Core(InterLevelFusion(width), maps, _loss)


def _loss(fusion, *maps):
    fused = fusion(maps[:5], maps[5:], [(0.25, 0.25, 0.75, 0.75)], [2])
    return sum(x.square().mean() for x in fused)
