"""NeuS on the same geometry: the baseline, whose colour depends on place, direction and normal alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.radiance.networks import MLP
from perception.radiance.occupancy import RaySections
from perception.radiance.spherical_harmonics import spherical_harmonics
from projects.rise_sdf.core import Rendering
from projects.rise_sdf.settings import GeometrySettings, HeadSettings
from projects.rise_sdf.surface import Surface


class NeuS(nn.Module):
    """A surface with a radiance network; colours are sRGB throughout, and the normals of ``maps`` have length 1.

    Unlike :class:`~projects.rise_sdf.core.RiseSDF` it also looks at samples that no light reaches, whose gradients the
    eikonal loss counts.

    Args:
        geometry: sizes.
        heads: ``width``, ``depth`` (or ``radiance``) and ``sh_degrees`` of the network.
    """

    def __init__(self, geometry: GeometrySettings | None = None, heads: HeadSettings | None = None):
        super().__init__()
        heads = heads or HeadSettings(sh_degrees=4)
        self.surface = Surface(geometry)
        self.degrees = heads.sh_degrees
        inputs = self.surface.settings.features + heads.sh_degrees**2 + 3
        self.radiance = MLP(inputs, 3, *heads.size("radiance"))

    def forward(
        self,
        rays_o: Tensor,
        rays_d: Tensor,
        *,
        background: Tensor | None = None,
        jitter: Tensor | None = None,
        tangents: torch.Generator | None = None,
    ) -> Rendering:
        """Render rays; see :meth:`~projects.rise_sdf.core.RiseSDF.forward`. The background is sRGB."""
        sections = self.surface.march(rays_o, rays_d, jitter=jitter, hidden=True)
        return self.render(rays_o, rays_d, sections, background=background, tangents=tangents)

    def render(
        self,
        rays_o: Tensor,
        rays_d: Tensor,
        sections: RaySections,
        *,
        background: Tensor | None = None,
        tangents: torch.Generator | None = None,
    ) -> Rendering:
        """The same for given sections of the rays."""
        found = self.surface.samples(rays_o, rays_d, sections)
        encoded = spherical_harmonics(found.directions, self.degrees)
        colour = self.radiance(torch.cat([found.feature, encoded, found.normal], -1)).sigmoid()
        ones = torch.ones_like(colour[:, :1])
        sums = found.sum(torch.cat([colour, found.normal, sections.middle[:, None], ones], -1))
        rgb, normal, depth, opacity = sums.split([3, 3, 1, 1], -1)
        bg = rgb.new_ones(3) if background is None else background
        colours = {"rgb": (rgb + bg * (1 - opacity)).clamp(0, 1)}
        curvature = self.surface.curvature(found, tangents)
        maps = {"normal": F.normalize(normal, dim=-1), "depth": depth, "opacity": opacity}
        return Rendering(found, maps, colours, torch.ones_like(opacity), curvature)
