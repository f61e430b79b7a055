"""What NeuS and RISE-SDF share: a signed distance, its sharpness, and the samples of rays in it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.radiance.compositing import alphas_to_weights, segment_sum
from perception.radiance.hash_sdf import UNIT_EPS, HashSDF, ProgressiveHashGrid
from perception.radiance.neus import LearnedVariance, neus_alpha, section_alpha
from perception.radiance.occupancy import MIN_TRANSMITTANCE, OccupancyGrid, RaySections, visible
from projects.rise_sdf.settings import GeometrySettings

DIAGONAL = 1.732  # of a unit cube, as the published step has it
AT_ONCE = 2**18  # points of the occupancy grid that are evaluated at once


class SurfaceSamples(NamedTuple):
    """M samples of N rays."""

    sections: RaySections
    num_rays: int  # N
    points: Tensor  # (M, 3)
    directions: Tensor  # (M, 3)
    sdf: Tensor  # (M,)
    gradient: Tensor  # (M, 3)
    feature: Tensor  # (M, C)
    normal: Tensor  # (M, 3) unit
    alpha: Tensor  # (M,)
    weights: Tensor  # (M,)

    def sum(self, values: Tensor) -> Tensor:
        """Weighted sums (N, ...) over rays of values (M, ...)."""
        weighted = values * self.weights.view(-1, *[1] * (values.dim() - 1))
        return segment_sum(weighted, self.sections.ray_id, self.num_rays)


class Surface(nn.Module):
    """Geometry of a field.

    Args:
        settings: sizes and schedules.
    """

    def __init__(self, settings: GeometrySettings | None = None):
        super().__init__()
        s = self.settings = settings or GeometrySettings()
        g = s.grid
        encoding = ProgressiveHashGrid(
            g.num_levels,
            g.features,
            g.log2_table_size,
            g.base_resolution,
            g.per_level_scale,
            g.start_level,
            g.start_step,
            g.update_steps,
            g.keep_levels,
        )
        self.sdf = HashSDF(
            encoding,
            radius=s.radius,
            out_features=s.features,
            width=s.width,
            depth=s.depth,
            sphere_init=s.sphere_init,
            gradient=s.gradient,
        )
        self.deviation = LearnedVariance(s.variance)
        self.occupancy = OccupancyGrid(s.radius, s.occupancy_resolution, s.occupancy_threshold)
        self.anneal = 0.0

    @property
    def step_length(self) -> float:
        """Length of a section, world units."""
        return DIAGONAL * 2 * self.settings.radius / self.settings.num_samples

    def set_step(self, step: int) -> None:
        """Follow the schedules of a training step."""
        self.sdf.update_step(step)
        self.anneal = min(1.0, step / self.settings.cos_anneal_end) if self.settings.cos_anneal_end else 1.0

    def update_occupancy(self, step: int, generator: torch.Generator) -> None:
        """Look at the field again, at the steps at which that is due."""
        inv_s = self.deviation.inv_s.detach()

        def opacity(points: Tensor) -> Tensor:
            parts = [
                section_alpha(self.sdf.distance(part), -1.0, self.step_length, inv_s) for part in points.split(AT_ONCE)
            ]
            return torch.cat(parts)

        self.occupancy.update(step, opacity, generator)

    def march(
        self,
        rays_o: Tensor,
        rays_d: Tensor,
        *,
        jitter: Tensor | None = None,
        near: float = 0.0,
        far: float = 1e9,
        step: float | None = None,
        hidden: bool = False,
    ) -> RaySections:
        """Sections of rays (N, 3) that light reaches, or with ``hidden`` all in occupied cells; ``step`` is their
        length, by default :attr:`step_length`."""
        step = step or self.step_length
        sections = self.occupancy.sections(rays_o, rays_d, step, near=near, far=far, jitter=jitter)
        return sections if hidden else visible(sections, self.alphas(rays_o, rays_d, sections))

    @torch.no_grad()
    def alphas(self, rays_o: Tensor, rays_d: Tensor, sections: RaySections) -> Tensor:
        """Opacities (M,) of sections of rays (N, 3), without a gradient and in bounded memory."""
        parts = [RaySections(*part) for part in zip(*(values.split(AT_ONCE // 8) for values in sections))]
        return torch.cat([self._alpha(part.points(rays_o, rays_d), rays_d[part.ray_id], part)[1] for part in parts])

    def _alpha(self, points: Tensor, directions: Tensor, sections: RaySections):
        field = self.sdf(points)
        normal = F.normalize(field.gradient, dim=-1, eps=UNIT_EPS)
        dists = sections.t_end - sections.t_start
        alpha = neus_alpha(field.sdf, normal, directions, dists, self.deviation.inv_s, self.anneal)
        return (field, normal), alpha

    def samples(self, rays_o: Tensor, rays_d: Tensor, sections: RaySections) -> SurfaceSamples:
        """The field at sections of rays (N, 3), with gradients."""
        points, directions = sections.points(rays_o, rays_d), rays_d[sections.ray_id]
        (field, normal), alpha = self._alpha(points, directions, sections)
        weights, _ = alphas_to_weights(alpha, sections.ray_id, len(rays_o), 0.0)
        return SurfaceSamples(
            sections, len(rays_o), points, directions, field.sdf, field.gradient, field.feature, normal, alpha, weights
        )

    def curvature(self, found: SurfaceSamples, tangents: torch.Generator | None) -> Tensor | None:
        """Curvature (M,) at samples, along random tangents; ``None`` without a source of these."""
        if tangents is None:
            return None
        random = torch.rand(found.points.shape, generator=tangents).to(found.points)
        return self.sdf.curvature(found.points, found.gradient, random)

    @torch.no_grad()
    def trace(
        self, origins: Tensor, directions: Tensor, *, near: float, far: float, samples: int
    ) -> tuple[Tensor, Tensor]:
        """What is left of light along rays (P, 3), and how far it goes: transmittance and expected depth (P, 1) each.

        Args:
            origins, directions: of the rays.
            near, far: where they begin and end, in units of the directions.
            samples: places from end to end, both included.
        """
        step = (far - near) / (samples - 1)
        sections = self.occupancy.sections(origins, directions, step, near=near, far=far)
        alpha = self.alphas(origins, directions, sections)
        weights, _ = alphas_to_weights(alpha, sections.ray_id, len(origins), MIN_TRANSMITTANCE)
        sums = segment_sum(torch.stack([weights, weights * sections.middle], -1), sections.ray_id, len(origins))
        opacity, depth = sums.split(1, -1)
        return (1 - opacity).clamp(0, 1), depth
