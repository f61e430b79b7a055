"""A learned environment light: a cube of radiance, its levels for surfaces of different roughness, and look-ups."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.radiance.cubemap import Up, latlong_to_cube, sample_cube, sample_mips, texel_directions
from perception.radiance.prefilter import Area, CubeFilter, diffuse_kernel, rounded_specular, specular_kernel

SMALLEST = 16  # faces of the roughest level
LEAST_ROUGHNESS, MIDDLE_ROUGHNESS = 0.08, 0.5
# Where single precision changes the published weights by more than 1e-4, and all of them fit into memory.
SHARP, MOST_ROUNDED = 0.25, 128


class LightMaps(NamedTuple):
    """What surfaces look light up in."""

    specular: list[Tensor]  # (6, N, N, 3) each, from the sharpest to the roughest
    diffuse: Tensor  # (6, 16, 16, 3), irradiance divided by pi

    def diffuse_light(self, normals: Tensor) -> Tensor:
        """(..., 3) that a matt white surface with these normals (..., 3) reflects."""
        return sample_cube(self.diffuse, normals)

    def specular_light(self, directions: Tensor, roughness: Tensor) -> Tensor:
        """(..., 3) from directions (..., 3), blurred by roughness (...) or (..., 1)."""
        level = roughness_level(roughness.reshape(directions.shape[:-1]), len(self.specular))
        return sample_mips(self.specular, directions, level)


def roughness_level(roughness: Tensor, num_levels: int) -> Tensor:
    """The level whose light a roughness sees: 0.08 the first, 0.5 the one before the last, 1 the last."""
    last = num_levels - 2
    sharp = (roughness.clamp(LEAST_ROUGHNESS, MIDDLE_ROUGHNESS) - LEAST_ROUGHNESS) / (
        MIDDLE_ROUGHNESS - LEAST_ROUGHNESS
    )
    rough = (roughness.clamp(MIDDLE_ROUGHNESS, 1) - MIDDLE_ROUGHNESS) / (1 - MIDDLE_ROUGHNESS)
    return torch.where(roughness < MIDDLE_ROUGHNESS, sharp * last, rough + last)


def level_roughness(num_levels: int) -> list[float]:
    """Roughness of each level.

    Example:
        >>> level_roughness(3)
        [0.08, 0.5, 1.0]
    """
    last = num_levels - 2
    sharp = [LEAST_ROUGHNESS + (MIDDLE_ROUGHNESS - LEAST_ROUGHNESS) * level / last for level in range(num_levels - 1)]
    return [*sharp, 1.0]


class EnvironmentLight(nn.Module):
    """Distant light in linear colours.

    Args:
        resolution: texels per side of a face, a power of two and at least 64.
        area: solid angles of texels; ``"released"`` are the published filter's, with which a constant light of 1 gives
            a diffuse one of 1.05 to 1.12, as published weights expect. With it, faces of at most 128 texels also have
            the published rounding of sharp lobes.
        exact_pooling: derive the levels' averages as they are; the published derivative looks the coarser level's
            gradient up smoothly instead.

    The parameter ``base`` is (6, N, N, 3), initially uniform in [0.25, 0.75]. Nothing keeps it from becoming negative.
    """

    def __init__(self, resolution: int = 512, *, area: Area = "released", exact_pooling: bool = False):
        super().__init__()
        if resolution < 4 * SMALLEST or resolution & (resolution - 1):
            raise ValueError(
                f"an environment light needs faces of a power of two of at least {4 * SMALLEST} texels, "
                f"not {resolution}"
            )
        self.area, self.exact_pooling = area, exact_pooling
        self.base = nn.Parameter(torch.rand(6, resolution, resolution, 3) * 0.5 + 0.25)

    @classmethod
    def from_latlong(
        cls, image: Tensor, resolution: int = 512, *, clamp: bool = False, area: Area = "released", up: Up = "z"
    ) -> EnvironmentLight:
        """The light of a lat-long map (H, W, 3), see :mod:`perception.radiance.cubemap` for its axes.

        Args:
            image: linear radiance.
            resolution: of the faces.
            clamp: cut radiance at 1, as the published relighting does.
            area: see the class.
            up: axis of the map's upper edge.
        """
        light = cls(resolution, area=area)
        with torch.no_grad():
            light.base.copy_(latlong_to_cube(image.clamp(0, 1) if clamp else image, resolution, up=up))
        return light

    @property
    def resolution(self) -> int:
        """Texels per side of a face."""
        return self.base.shape[1]

    def build(self) -> LightMaps:
        """The levels and the diffuse map, differentiable by ``base``."""
        pooled = [self.base]
        while pooled[-1].shape[1] > SMALLEST:
            pooled.append(_pool(pooled[-1]) if self.exact_pooling else _Pool.apply(pooled[-1]))
        device = str(self.base.device)
        diffuse = _filter(SMALLEST, None, self.area, device)(pooled[-1])
        specular = [
            _filter(texels.shape[1], roughness, self.area, device)(texels)
            for texels, roughness in zip(pooled, level_roughness(len(pooled)), strict=True)
        ]
        return LightMaps(specular, diffuse)

    @torch.no_grad()
    def clamp_(self) -> None:
        """Raise negative texels to 0."""
        self.base.clamp_(min=0)


@lru_cache(24)
def _filter(size: int, roughness: float | None, area: Area, device: str) -> CubeFilter:
    if roughness is None:
        return CubeFilter(size, *diffuse_kernel(), area=area, normalise=False, device=device)
    rounds = area == "released" and roughness < SHARP and size <= MOST_ROUNDED
    pairs = rounded_specular(roughness) if rounds else None
    return CubeFilter(size, *specular_kernel(roughness), area=area, normalise=True, device=device, pairs=pairs)


def _pool(texels: Tensor) -> Tensor:
    """Means (6, N / 2, N / 2, C) of 2 x 2 texels."""
    return F.avg_pool2d(texels.movedim(-1, 1), 2).movedim(1, -1)


class _Pool(torch.autograd.Function):
    """:func:`_pool` with the published derivative."""

    @staticmethod
    def forward(ctx, texels: Tensor) -> Tensor:
        return _pool(texels).contiguous()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        fine = texel_directions(grad.shape[1] * 2, grad.device, grad.dtype)
        return 0.25 * sample_cube(grad.contiguous(), fine)
