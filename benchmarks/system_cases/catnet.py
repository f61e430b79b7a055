"""CATNet: the dense feature pyramid."""

import torch

from projects.catnet.dense_fpn import DenseFPN
from system_cases import Core


def core(large: bool) -> Core:
    channels, width, stages, side = ((256, 512, 1024, 2048), 256, 5, 128) if large else ((8, 16, 24), 16, 2, 16)
    pyramid = DenseFPN(channels, width, num_outs=len(channels) + 1, stack_times=stages)
    maps = tuple(torch.randn(2, count, side // 2**k, side // 2**k) for k, count in enumerate(channels))
    return Core(pyramid, maps, lambda module, *x: sum(out.square().mean() for out in module(x)))
