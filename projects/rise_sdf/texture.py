"""The networks of colours and materials, which a radiance field and a shaded surface share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from perception.radiance.encodings import frequency_bands
from perception.radiance.environment import LightMaps
from perception.radiance.networks import MLP
from perception.radiance.spherical_harmonics import spherical_harmonics
from perception.radiance.split_sum import brdf_table, look_up
from projects.rise_sdf.settings import HeadSettings

DIELECTRIC = 0.04  # reflectance at normal incidence of what is not metal

RADIANCE = {"diffuse": 3, "specular": 3, "blend": 1}
PHYSICAL = {
    "diffuse_phys": 3,
    "specular_phys": 3,
    "reflectance": 3,
    "specular_light": 3,
    "albedo": 3,
    "metallic": 1,
    "roughness": 1,
}
"""Channels that the texture gives for each sample: those of the radiance field, then those of the shaded surface."""


def named(channels: Tensor) -> dict[str, Tensor]:
    """Channels (..., 7) or (..., 24) by their names."""
    names = RADIANCE if channels.shape[-1] == sum(RADIANCE.values()) else {**RADIANCE, **PHYSICAL}
    return dict(zip(names, channels.split(list(names.values()), -1)))


class Materials(NamedTuple):
    """What a surface is made of, at M points."""

    albedo: Tensor  # (M, 3)
    metallic: Tensor  # (M, 1)
    roughness: Tensor  # (M, 1)


class SharedTexture(nn.Module):
    """Five networks on the geometry's features; the outputs of the first two serve both renderings.

    Args:
        features: C of the geometry.
        settings: sizes.

    The buffer ``table`` (1, S, S, 2) is :func:`~perception.radiance.split_sum.brdf_table`; another may take its place.
    """

    def __init__(self, features: int = 48, settings: HeadSettings | None = None):
        super().__init__()
        s = self.settings = settings or HeadSettings()
        place, direction = features + 6 * s.frequencies, features + s.sh_degrees**2
        self.albedo = MLP(place, 6, *s.size("albedo"))
        self.metallic = MLP(place, 2, *s.size("metallic"))
        self.roughness = MLP(place, 1, *s.size("roughness"))
        self.radiance = MLP(direction, 3, *s.size("radiance"))
        self.indirect = MLP(direction + 3, 3, *s.size("indirect"))
        self.register_buffer("table", brdf_table(s.table_size).clone())
        self.register_buffer("bands", frequency_bands(s.frequencies), persistent=False)

    def forward(
        self, points: Tensor, feature: Tensor, directions: Tensor, normals: Tensor, light: LightMaps | None = None
    ) -> Tensor:
        """Linear colours of samples.

        Args:
            points: (M, 3) world units.
            feature: (M, C) of the geometry.
            directions: (M, 3) of the rays, unit vectors.
            normals: (M, 3) unit vectors.
            light: of the second stage; the first has none.

        Returns:
            (M, 7) channels of :data:`RADIANCE`, followed with a light by the 17 of :data:`PHYSICAL`.
        """
        mirror = reflect(-directions, normals)
        place = self._at(points, feature)
        colours, metals = self.albedo(place).sigmoid(), self.metallic(place).sigmoid()
        blend = metals[:, :1]
        reflected = self.radiance(torch.cat([feature, self._towards(mirror)], -1)).sigmoid()
        channels = [(1 - blend) * colours[:, :3], blend * reflected, blend]
        if light is not None:
            materials = Materials(colours[:, 3:], metals[:, 1:], self.roughness(place).sigmoid())
            diffuse, reflectance, incoming = self.shade(materials, normals, -directions, mirror, light)
            channels += [diffuse, reflectance * incoming, reflectance, incoming, *materials]
        return torch.cat(channels, -1)

    def materials(self, points: Tensor, feature: Tensor) -> Materials:
        """What is at points (M, 3)."""
        place = self._at(points, feature)
        return Materials(
            self.albedo(place).sigmoid()[:, 3:], self.metallic(place).sigmoid()[:, 1:], self.roughness(place).sigmoid()
        )

    def shade(
        self, materials: Materials, normals: Tensor, to_camera: Tensor, seen: Tensor, light: LightMaps
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Diffuse light, specular reflectance and the specular light for it, each (M, 3).

        Args:
            materials: of M points.
            normals, to_camera: (M, 3).
            seen: (M, 3) where specular light comes from.
            light: filtered.
        """
        albedo, metallic, roughness = materials
        cosine = (normals * to_camera).sum(-1)
        diffuse = (1 - metallic) * albedo * light.diffuse_light(normals)
        at_normal = DIELECTRIC * (1 - metallic) + metallic * albedo
        scale, bias = look_up(self.table, cosine, roughness[:, 0])
        return diffuse, at_normal * scale + bias, light.specular_light(seen, roughness)

    def indirect_light(self, feature: Tensor, directions: Tensor, normals: Tensor) -> Tensor:
        """Light (P, 3) that comes to surface points from directions (P, 3) in which other parts of the object are."""
        return self.indirect(torch.cat([feature, self._towards(directions), normals], -1)).sigmoid()

    def _at(self, points: Tensor, feature: Tensor) -> Tensor:
        scaled = points[:, None] * self.bands[:, None]  # (M, F, 3)
        return torch.cat([feature, torch.stack([scaled.sin(), scaled.cos()], 2).flatten(1)], -1)

    def _towards(self, directions: Tensor) -> Tensor:
        return spherical_harmonics(directions, self.settings.sh_degrees)


def reflect(to_camera: Tensor, normals: Tensor) -> Tensor:
    """Mirror directions (..., 3)."""
    return 2 * (to_camera * normals).sum(-1, keepdim=True) * normals - to_camera
