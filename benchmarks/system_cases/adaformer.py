"""AdaFormer: the backbone of a search area."""

import torch

from projects.adaformer.backbone import AdaFormer
from system_cases import Core


def core(large: bool) -> Core:
    points = 1024 if large else 64
    dims = ((64, 64, 128), (128, 128, 256), (256, 256, 256)) if large else ((8, 8, 16), (16, 16, 24), (24, 24, 24))
    backbone = AdaFormer(3, dims)
    cloud = torch.cat([torch.randn(4, points, 3), torch.zeros(4, points, 3) + torch.tensor([1.4, 0.5, 0.4])], -1)

    def loss(module, cloud):
        return module(cloud, (points // 2, points // 4, points // 8)).features[-1].square().mean()

    return Core(backbone, (cloud,), loss)
