"""A rig and a head small enough for tests: six cameras 60 degrees apart, 16 x 16 cells, two of every layer."""

import math

import torch
from torch import Tensor

from perception.geometry import cameras, se3
from projects.bevformer_v2.head import BEVFormerHead
from projects.bevformer_v2.losses import Target3D
from projects.bevformer_v2.points import Rig

HEIGHT, WIDTH = 64, 96
LEVELS = ((8, 12), (4, 6))
RANGE = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
SIZES = dict(
    embed_dims=32,
    bev_size=(16, 16),
    num_queries=12,
    num_groups=2,
    transformer=dict(
        num_heads=4,
        num_levels=2,
        feedforward_channels=64,
        num_encoder_layers=2,
        num_decoder_layers=2,
        dropout=0.0,
    ),
)


def rig_poses(turn: float = 0.0, radius: float = 0.8) -> tuple[Tensor, Tensor]:
    """Intrinsics (3, 3), and poses (6, 4, 4) of the LiDAR's frame in the cameras' frames."""
    intrinsics = torch.tensor([[0.55 * WIDTH, 0, WIDTH / 2], [0, 0.55 * WIDTH, HEIGHT / 2], [0, 0, 1]])
    poses = []
    for angle in turn + torch.arange(6) * (math.pi / 3):
        sin, cos = angle.sin(), angle.cos()
        zero, one = torch.zeros(()), torch.ones(())
        rows = ((cos, -sin, zero), (zero, zero, -one), (sin, cos, zero))  # right, down, ahead
        rotation = torch.stack([torch.stack(row) for row in rows])
        poses.append(se3.compose(rotation, -rotation @ (radius * torch.stack([sin, cos, zero]))))
    return intrinsics, torch.stack(poses)


def rig(*turns: float) -> Rig:
    """One rig for each sample, turned by an angle."""
    matrices = [cameras.image_matrix(*rig_poses(turn)) for turn in turns or (0.0,)]
    return Rig(torch.stack(matrices), (HEIGHT, WIDTH))


def feature_maps(batch: int = 1, seed: int = 0, channels: int = 32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 6, channels, *size, generator=generator) for size in LEVELS]


def objects(count: int = 5, seed: int = 0) -> Target3D:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator)

    places, heights, sizes, rest = (drawn(count, columns) for columns in (2, 1, 3, 3))
    boxes = torch.cat([places * 80 - 40, heights - 1, sizes * 3 + 1, rest * 6 - 3], 1)
    return Target3D(torch.arange(count), boxes)


def head(seed: int = 0, **settings) -> BEVFormerHead:
    torch.manual_seed(seed)
    transformer = {**SIZES["transformer"], **settings.pop("transformer", {})}
    return BEVFormerHead(**{**SIZES, "transformer": transformer, **settings})


def shaken(module: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    """With weights at which nothing is zero or equal by initialisation."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return module
