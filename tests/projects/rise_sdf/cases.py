"""Small fields."""

import torch
import torch.nn.functional as F

from projects.rise_sdf.core import RiseSDF
from projects.rise_sdf.settings import GeometrySettings, GridSettings, HeadSettings, IndirectSettings, LightSettings

GRID = GridSettings(num_levels=4, log2_table_size=10, base_resolution=4, start_level=4, start_step=0)
GEOMETRY = GeometrySettings(
    grid=GRID, features=8, width=32, variance=0.5, cos_anneal_end=100, num_samples=96, occupancy_resolution=16
)
HEADS = HeadSettings(width=32, depth=2, material_depth=2, frequencies=3, sh_degrees=3, table_size=32)
LIGHT = LightSettings(resolution=64)


def small_field(seed: int = 0, **indirect) -> RiseSDF:
    """A field whose surface is roughly a ball of radius 0.5."""
    torch.manual_seed(seed)
    field = RiseSDF(GEOMETRY, HEADS, LIGHT, IndirectSettings(samples=24, **indirect))
    field.surface.set_step(100)
    return field


def rays(count: int, seed: int = 0, spread: float = 0.4) -> tuple[torch.Tensor, torch.Tensor]:
    """From all around, at about the origin."""
    generator = torch.Generator().manual_seed(seed)
    origins = F.normalize(torch.randn(count, 3, generator=generator), dim=-1) * 4
    targets = (torch.rand(count, 3, generator=generator) - 0.5) * 2 * spread
    return origins, F.normalize(targets - origins, dim=-1)
