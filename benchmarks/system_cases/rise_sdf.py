"""RISE-SDF: rays through the field in its second stage, light and mirror rays included."""

import torch
from torch.nn import functional

from projects.rise_sdf.core import RiseSDF
from projects.rise_sdf.settings import GeometrySettings, GridSettings, HeadSettings, IndirectSettings, LightSettings
from system_cases import Core


def core(large: bool) -> Core:
    if large:
        field, count = RiseSDF(GeometrySettings(variance=0.5)), 1024
    else:
        grid = GridSettings(num_levels=4, log2_table_size=10, base_resolution=4, start_level=4)
        geometry = GeometrySettings(grid, features=8, width=16, variance=0.5, num_samples=64, occupancy_resolution=16)
        heads = HeadSettings(width=16, depth=2, frequencies=2, sh_degrees=3, table_size=16)
        field, count = RiseSDF(geometry, heads, LightSettings(64), IndirectSettings(samples=16)), 16
    field.surface.set_step(80_000)
    origins = functional.normalize(torch.randn(count, 3), dim=-1) * 4
    directions = functional.normalize(torch.rand(count, 3) - 0.5 - origins, dim=-1)
    return Core(field, (origins, directions), _loss)


def _loss(field, origins, directions):
    shown = field(origins.detach(), directions.detach(), light=field.light.build())
    return sum((colour - 0.5).square().mean() for colour in shown.colours.values())
