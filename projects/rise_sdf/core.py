"""RISE-SDF in plain torch: a surface, its texture, its light, and what rays see of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.radiance.environment import EnvironmentLight, LightMaps
from perception.radiance.hash_sdf import UNIT_EPS
from perception.radiance.occupancy import RaySections
from perception.radiance.split_sum import linear_to_srgb
from projects.rise_sdf.settings import GeometrySettings, HeadSettings, IndirectSettings, LightSettings
from projects.rise_sdf.surface import Surface, SurfaceSamples
from projects.rise_sdf.texture import SharedTexture, named, reflect


@dataclass
class Rendering:
    """N rays.

    ``maps`` are sums over samples, in linear colours and not divided by opacity: ``normal``, ``depth`` (N, 1),
    ``opacity`` (N, 1) and the channels of the texture; ``specular``, ``specular_phys`` and ``specular_light`` with what
    the object itself hides and reflects. ``colours`` are sRGB on the background: ``rgb``, ``specular_rgb``, and in the
    second stage ``rgb_phys`` and ``specular_rgb_phys``.
    """

    samples: SurfaceSamples
    maps: dict[str, Tensor]
    colours: dict[str, Tensor]
    visibility: Tensor  # (N, 1) of distant light in the mirror direction
    curvature: Tensor | None = field(default=None)  # (M,)


class RiseSDF(nn.Module):
    """The whole field.

    Args:
        geometry, heads, light, indirect: settings of the parts.
    """

    def __init__(
        self,
        geometry: GeometrySettings | None = None,
        heads: HeadSettings | None = None,
        light: LightSettings | None = None,
        indirect: IndirectSettings | None = None,
    ):
        super().__init__()
        self.indirect = indirect or IndirectSettings()
        light = light or LightSettings()
        self.surface = Surface(geometry)
        self.texture = SharedTexture(self.surface.settings.features, heads)
        self.light = EnvironmentLight(
            light.resolution,
            area="exact" if light.exact_solid_angle else "released",
            exact_pooling=light.exact_pooling,
        )

    def forward(
        self,
        rays_o: Tensor,
        rays_d: Tensor,
        *,
        light: LightMaps | None,
        background: Tensor | None = None,
        jitter: Tensor | None = None,
        relighting: bool = False,
        tangents: torch.Generator | None = None,
    ) -> Rendering:
        """Render rays.

        Args:
            rays_o: (N, 3) origins.
            rays_d: (N, 3) directions of length 1.
            light: filtered, for the second stage; ``None`` renders the radiance field alone (the first).
            background: linear colour (3,); white by default.
            jitter: (N,) in [0, 1), shares of a section by which rays begin later; in training.
            relighting: the light is another than the learned one, so that what the object reflects of itself is shaded
                anew.
            tangents: of the curvature's second samples; without it there is no curvature.
        """
        sections = self.surface.march(rays_o, rays_d, jitter=jitter)
        return self.render(
            rays_o,
            rays_d,
            sections,
            light=light,
            background=background,
            relighting=relighting,
            tangents=tangents,
        )

    def render(
        self,
        rays_o: Tensor,
        rays_d: Tensor,
        sections: RaySections,
        *,
        light: LightMaps | None,
        background: Tensor | None = None,
        relighting: bool = False,
        tangents: torch.Generator | None = None,
        occlusion: tuple[Tensor, Tensor] | None = None,
    ) -> Rendering:
        """The same for given sections of the rays.

        Args:
            rays_o, rays_d, light, background, relighting, tangents: see :meth:`forward`.
            sections: where the field is looked at.
            occlusion: transmittance and depth (P, 1) of the mirror rays, instead of those that are traced, for the P
                rays with more than ``indirect.min_opacity``.
        """
        found = self.surface.samples(rays_o, rays_d, sections)
        channels = self.texture(found.points, found.feature, found.directions, found.normal, light)
        sums = found.sum(
            torch.cat([channels, found.normal, sections.middle[:, None], torch.ones_like(channels[:, :1])], -1)
        )
        maps = named(sums[:, : channels.shape[1]])
        maps["normal"], maps["depth"], maps["opacity"] = sums[:, channels.shape[1] :].split([3, 1, 1], -1)
        visibility = self._reflect_itself(rays_o, rays_d, maps, light, relighting, occlusion)
        curvature = self.surface.curvature(found, tangents)
        return Rendering(found, maps, self.colours(maps, background), visibility, curvature)

    def _reflect_itself(
        self,
        rays_o: Tensor,
        rays_d: Tensor,
        maps: dict[str, Tensor],
        light: LightMaps | None,
        relighting: bool,
        occlusion: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """Put into the specular maps what mirror rays meet of the object. Returns visibility (N, 1)."""
        visibility = torch.ones_like(maps["opacity"])
        if not self.indirect.predict:
            return visibility
        chosen = (maps["opacity"][:, 0] > self.indirect.min_opacity).nonzero()[:, 0]
        if len(chosen):
            normal, directions = maps["normal"][chosen], rays_d[chosen]
            origins = rays_o[chosen] + maps["depth"][chosen] * directions
            mirror = reflect(-directions, normal)
            if occlusion is None:
                s = self.indirect
                occlusion = self.surface.trace(origins, mirror, near=s.near, far=s.far, samples=s.samples)
            clear, depth = occlusion
            visibility = visibility.index_copy(0, chosen, clear)
            incoming = self.texture.indirect_light(self.surface.sdf.features(origins), mirror, normal)
            self._blend(maps, "specular", chosen, clear, incoming)
            if light is not None and not relighting:
                self._blend(maps, "specular_phys", chosen, clear, incoming)
            if light is not None and relighting:
                smooth = (maps["roughness"][chosen, 0] <= self.indirect.relighting_threshold).nonzero()[:, 0]
                if len(smooth):
                    second = origins[smooth] + depth[smooth] * mirror[smooth]
                    shaded = self.second_surface(second, mirror[smooth], light)
                    self._blend(maps, "specular_light", chosen[smooth], clear[smooth], shaded)
        if light is not None and relighting:
            maps["specular_phys"] = maps["reflectance"] * maps["specular_light"]
        return visibility

    @staticmethod
    def _blend(maps: dict[str, Tensor], name: str, chosen: Tensor, clear: Tensor, incoming: Tensor) -> None:
        seen = clear * maps[name][chosen] + (1 - clear) * incoming
        maps[name] = maps[name].index_copy(0, chosen, seen)

    def second_surface(self, points: Tensor, directions: Tensor, light: LightMaps) -> Tensor:
        """Colours (P, 3) of surface points under a light, as rays of directions (P, 3) see them."""
        found = self.surface.sdf(points)
        normals = F.normalize(found.gradient, dim=-1, eps=UNIT_EPS)
        seen = directions if self.indirect.secondary_lookup == "ray" else reflect(-directions, normals)
        materials = self.texture.materials(points, found.feature)
        diffuse, reflectance, incoming = self.texture.shade(materials, normals, -directions, seen, light)
        return diffuse + reflectance * incoming

    def colours(self, maps: dict[str, Tensor], background: Tensor | None = None) -> dict[str, Tensor]:
        """sRGB colours (N, 3) in [0, 1] on a linear background."""
        bg = maps["opacity"].new_ones(3) if background is None else background
        behind = bg * (1 - maps["opacity"])

        def shown(linear: Tensor) -> Tensor:
            return linear_to_srgb(linear + behind).clamp(0, 1)

        colours = {"rgb": shown(maps["diffuse"] + maps["specular"]), "specular_rgb": shown(maps["specular"])}
        if "diffuse_phys" in maps:
            colours["rgb_phys"] = shown(maps["diffuse_phys"] + maps["specular_phys"])
            colours["specular_rgb_phys"] = shown(maps["specular_phys"])
        return colours
