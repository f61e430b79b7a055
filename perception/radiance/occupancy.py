"""Samples of rays in the part of a cube that may hold a surface, which is learned as the field is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from perception.ops.ray_aabb import FAR, ray_aabb
from perception.ops.sample_rays import sample_rays
from perception.radiance.grids import MaskGrid

MIN_TRANSMITTANCE = 1e-4  # behind less light than this a ray ends


class RaySections(NamedTuple):
    """M sections of N rays, sorted by ray, then from near to far; ray parameters, of directions of length 1."""

    ray_id: Tensor  # (M,) int64
    t_start: Tensor  # (M,)
    t_end: Tensor  # (M,)

    @property
    def middle(self) -> Tensor:
        """(M,) where the field is evaluated."""
        return (self.t_start + self.t_end) / 2

    def points(self, rays_o: Tensor, rays_d: Tensor) -> Tensor:
        """(M, 3) middles in space, of rays (N, 3)."""
        return rays_o[self.ray_id] + rays_d[self.ray_id] * self.middle[:, None]

    def select(self, keep: Tensor) -> RaySections:
        """Some of the sections, by a test (M,) or by index."""
        return RaySections(self.ray_id[keep], self.t_start[keep], self.t_end[keep])


class OccupancyGrid(nn.Module):
    """Which cells of the cube [-radius, radius]^3 may hold a surface (Instant NGP, as nerfacc 0.5 has it).

    Args:
        radius: half the side of the cube, world units.
        resolution: R, cells per side.
        threshold: of opacity; where the mean is lower, that.
        decay: of what a cell was known to hold, with each update.
        warmup: steps during which updates look at all cells; later ones look at a quarter of them, drawn at random,
            and at those marked, of which again at most as many are drawn.
        interval: steps from update to update.

    The buffer ``occs`` (R^3) is the opacity of each cell, ``binaries`` (1, R, R, R) what is marked; in the beginning,
    everything.
    """

    def __init__(
        self,
        radius: float = 1.5,
        resolution: int = 128,
        threshold: float = 0.001,
        decay: float = 0.95,
        warmup: int = 256,
        interval: int = 16,
    ):
        super().__init__()
        self.radius, self.resolution = radius, resolution
        self.threshold, self.decay, self.warmup, self.interval = threshold, decay, warmup, interval
        self.register_buffer("occs", torch.zeros(resolution**3))
        self.register_buffer("binaries", torch.ones(1, resolution, resolution, resolution, dtype=torch.bool))
        self._mask: tuple[tuple, MaskGrid] | None = None

    @property
    def cell(self) -> float:
        """Side of a cell, world units."""
        return 2 * self.radius / self.resolution

    @torch.no_grad()
    def update(self, step: int, opacity: Callable[[Tensor], Tensor], generator: torch.Generator) -> None:
        """Look at the field, if it is time.

        Args:
            step: of training.
            opacity: of points (P, 3), as (P,).
            generator: of where in a cell the field is looked at, and at which cells.
        """
        if step % self.interval:
            return
        cells = self._cells(step, generator)
        places = torch.rand(len(cells), 3, generator=generator).to(self.occs.device)
        size = self.resolution
        corner = torch.stack([cells // size**2, cells // size % size, cells % size], -1)
        seen = opacity((corner + places) * self.cell - self.radius)
        self.occs[cells] = torch.maximum(self.occs[cells] * self.decay, seen)
        least = self.occs.mean().clamp(max=self.threshold)
        self.binaries = (self.occs > least).view_as(self.binaries)

    def _cells(self, step: int, generator: torch.Generator) -> Tensor:
        """Numbers of the cells that an update looks at."""
        total = self.resolution**3
        if step < self.warmup:
            return torch.arange(total, device=self.occs.device)
        share = total // 4
        some = torch.randint(total, (share,), generator=generator).to(self.occs.device)
        marked = self.binaries.flatten().nonzero()[:, 0]
        if len(marked) > share:
            marked = marked[torch.randint(len(marked), (share,), generator=generator).to(marked.device)]
        return torch.cat([some, marked]).unique()

    @torch.no_grad()
    def sections(
        self,
        rays_o: Tensor,
        rays_d: Tensor,
        step: float,
        *,
        near: float = 0.0,
        far: float = FAR,
        jitter: Tensor | None = None,
    ) -> RaySections:
        """Sections of length ``step`` of rays (N, 3), whose middles lie in marked cells.

        Args:
            rays_o, rays_d: origins and directions; the latter have length 1, or all lengths are in their units.
            step: length of a section.
            near, far: bounds of the middles.
            jitter: (N,) in [0, 1), by how much of a section each ray begins later.
        """
        low = rays_o.new_full((3,), -self.radius)
        t_min, t_max = ray_aabb(rays_o, rays_d, low, -low, near, far)
        if jitter is not None:
            t_min = t_min + jitter * step
        count = ((t_max - t_min) / step + 0.5).floor().clamp(min=0).long()
        start = rays_o + rays_d * (t_min + step / 2)[:, None]
        mask = self._mask_grid()
        _, ray_id, number = sample_rays(
            start, rays_d, count, low, -low, step, mask.mask, mask.xyz2ijk_scale, mask.xyz2ijk_shift, mask.may_touch
        )
        t_start = t_min[ray_id] + number * step
        return RaySections(ray_id, t_start, t_start + step)

    def _mask_grid(self) -> MaskGrid:
        state = (self.binaries.data_ptr(), self.binaries._version, self.binaries.device)
        if self._mask is None or self._mask[0] != state:
            # Cells of that grid are centred on the faces of its box.
            bounds = torch.full((3,), self.radius - self.cell / 2, device=self.binaries.device)
            self._mask = (state, MaskGrid(self.binaries[0], -bounds, bounds))
        return self._mask[1]


@torch.no_grad()
def visible(sections: RaySections, alpha: Tensor, min_transmittance: float = MIN_TRANSMITTANCE) -> RaySections:
    """The sections in front of which at least this much light of their ray is left.

    Args:
        sections: M of them.
        alpha: (M,) their opacities.
        min_transmittance: the bound.
    """
    before = transmittance(alpha, sections.ray_id)
    return sections.select(before >= min_transmittance)


def transmittance(alpha: Tensor, ray_id: Tensor) -> Tensor:
    """Share of light (M,) that reaches each section of rays, from their opacities (M,); sorted by ray."""
    if not len(alpha):
        return alpha
    _, count = torch.unique_consecutive(ray_id, return_counts=True)
    row = torch.arange(len(count), device=alpha.device).repeat_interleave(count)
    place = torch.arange(len(alpha), device=alpha.device) - (count.cumsum(0) - count)[row]
    clear = alpha.new_ones(len(count), int(count.max()) + 1)
    clear[row, place + 1] = 1 - alpha
    return clear.cumprod(1)[row, place]
