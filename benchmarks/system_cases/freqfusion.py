"""FreqFusion: one fusion of a shallow and a deep map, with its offsets."""

import torch

from projects.freqfusion.fusion import FreqFusion
from system_cases import Core


def core(large: bool) -> Core:
    width, side = (256, 128) if large else (32, 8)
    fusion = FreqFusion(width, width, compressed_channels=64 if large else 16, feature_resample=True)
    maps = torch.randn(2, width, 2 * side, 2 * side), torch.randn(2, width, side, side)
    return Core(fusion, maps, lambda module, high, low: sum(x.square().mean() for x in module(high, low)))
