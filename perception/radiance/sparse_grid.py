"""A sparse voxel field with spherical harmonics up to degree 2, as Plenoxels has it (arXiv:2112.05131)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from perception.ops.dilate_mask import dilate_mask
from perception.ops.march_rays import Field, March, Rays, march_gradient, march_rays, sparse_trilinear
from perception.ops.sparse_total_variation import sparse_total_variation_add_grad_

BASES = 9  # of degree 2
DEGREES = 2  # the greatest one
RELEASED = {"density": "density_data", "sh": "sh_data"}
"""Of parameters, our names and those of the library that the authors use."""
INITIAL_DENSITY = 0.1
_POINTS_AT_ONCE = 1 << 20
PLAIN_MARCH = March()

C0 = 0.28209479177387814
C1 = 0.4886025119029199
C2 = (1.0925484305920792, -1.0925484305920792, 0.31539156525252005, -1.0925484305920792, 0.5462742152960396)


def sh_basis(directions: Tensor) -> Tensor:
    """Real spherical harmonics up to degree 2, (..., 9), at unit directions (..., 3)."""
    x, y, z = directions.unbind(-1)
    return torch.stack(
        [
            torch.full_like(x, C0),
            -C1 * y,
            C1 * z,
            -C1 * x,
            C2[0] * x * y,
            C2[1] * y * z,
            C2[2] * (2 * z * z - x * x - y * y),
            C2[3] * x * z,
            C2[4] * (x * x - y * y),
        ],
        -1,
    )


class SparseGrid(nn.Module):
    """Densities and colours at some of the voxels of a box, and how rays see them.

    World coordinates are those of the box: normalised device coordinates in forward-facing scenes. Voxel (i, j, k) has
    its centre at whole numbers of grid coordinates, whose range is [-0.5, n - 0.5].

    Args:
        active: voxels that exist, bool (X, Y, Z).
        radius, center: half extent and centre of the box, world units, (3,) each.
        density, sh: values of the active voxels in row-major order, (V, 1) and (V, 3 B) with index
            ``B * colour + function``, for B = 1, 4 or 9 functions; by default 0.1 and 0.
        sh_degree: of the harmonics, from 0 to 2, where ``sh`` does not say it.

    The tables are parameters; rows are always in row-major order of voxels. ``load_state_dict`` takes fields of any
    size and number of voxels, also under the names of the library that the authors use (``density_data``, ``sh_data``),
    whose rows may be in any order and whose empty links may be any negative numbers.
    """

    links: Tensor
    levels: Tensor
    radius: Tensor
    center: Tensor

    def __init__(
        self,
        active: Tensor,
        radius: Sequence[float] | Tensor,
        center: Sequence[float] | Tensor = (0.0, 0.0, 0.0),
        density: Tensor | None = None,
        sh: Tensor | None = None,
        sh_degree: int = DEGREES,
    ):
        super().__init__()
        if not 0 <= sh_degree <= DEGREES:
            raise ValueError(f"the degree of harmonics must be from 0 to {DEGREES}, not {sh_degree}")
        channels = 3 * (sh_degree + 1) ** 2
        for name, value in (("radius", radius), ("center", center)):
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32).to(active.device, copy=True))
        self.density, self.sh = nn.Parameter(torch.empty(0, 1)), nn.Parameter(torch.empty(0, channels))
        for name in ("links", "levels"):
            self.register_buffer(name, torch.empty(0), persistent=name == "links")
        rows = int(active.sum())
        if density is None:
            density = torch.full((rows, 1), INITIAL_DENSITY, device=active.device)
        self.replace(active, density, torch.zeros(rows, channels, device=active.device) if sh is None else sh)

    @classmethod
    def full(
        cls,
        size: Sequence[int],
        radius: Sequence[float],
        center: Sequence[float] = (0.0, 0.0, 0.0),
        sh_degree: int = DEGREES,
    ) -> SparseGrid:
        """A grid all of whose voxels exist."""
        return cls(torch.ones(tuple(size), dtype=torch.bool), radius, center, sh_degree=sh_degree)

    # What is there

    @property
    def size(self) -> tuple[int, int, int]:
        """Voxels along x, y and z."""
        x, y, z = self.links.shape
        return x, y, z

    @property
    def active(self) -> Tensor:
        """The voxels that exist, bool (X, Y, Z)."""
        return self.links >= 0

    @torch.no_grad()
    def replace(self, active: Tensor, density: Tensor, sh: Tensor) -> None:
        """Take other voxels and values; the parameter objects stay, their gradients are forgotten.

        Args:
            active: bool (X, Y, Z), of any size.
            density, sh: (V, 1) and (V, 3 B), in row-major order of the active voxels.

        Raises:
            ValueError: the tables do not have as many rows as there are voxels, or other columns.
        """
        rows = int(active.sum())
        if len(density) != rows or len(sh) != rows:
            raise ValueError(f"{rows} voxels, but {len(density)} densities and {len(sh)} rows of coefficients")
        if density.shape[1:] != (1,) or sh.shape[1:] not in [(3 * (degree + 1) ** 2,) for degree in range(DEGREES + 1)]:
            raise ValueError(
                f"tables must be (V, 1) and (V, 3), (V, 12) or (V, 27), not {tuple(density.shape)}, {tuple(sh.shape)}"
            )
        links = active.reshape(-1).cumsum(0, dtype=torch.int32).sub_(1).view(active.shape)
        self.links = links.masked_fill_(~active, -1)
        self.levels = empty_levels(active)
        for parameter, value in ((self.density, density), (self.sh, sh)):
            parameter.data = value.detach().to(active.device, torch.float32).contiguous().clone()
            parameter.grad = None

    def refresh(self) -> None:
        """Find the empty blocks again, after the links were set from outside."""
        self.levels = empty_levels(self.active)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state = dict(state_dict)
        names = {prefix + ours: prefix + theirs for ours, theirs in RELEASED.items()}
        for ours, theirs in names.items():
            if theirs in state and ours not in state:
                state[ours] = state.pop(theirs)
        if all(name in state for name in (*names, prefix + "links")):
            links = state[prefix + "links"].to(self.radius.device)
            active = links >= 0
            rows = links[active].long()
            tables = [state[name].to(self.radius.device) for name in names]
            if len(rows) and int(rows.max()) >= min(map(len, tables)):
                errors = args[-1]
                errors.append(f"{prefix}links name row {int(rows.max())}, and the tables have {len(tables[0])}")
                return
            self.replace(active, *(table[rows] for table in tables))
            own = {"links": self.links, "density": self.density.data, "sh": self.sh.data}
            state.update({prefix + name: value for name, value in own.items()})
        super()._load_from_state_dict(state, prefix, *args)

    # Coordinates

    def _scale(self) -> tuple[Tensor, Tensor]:
        size = self.radius.new_tensor(self.size)
        return 0.5 / self.radius * size, 0.5 * (1 - self.center / self.radius) * size - 0.5

    def to_grid(self, points: Tensor) -> Tensor:
        """World to grid coordinates (..., 3)."""
        scale, shift = self._scale()
        return points * scale + shift

    def to_world(self, points: Tensor) -> Tensor:
        """Grid to world coordinates (..., 3)."""
        size = self.radius.new_tensor(self.size)
        return points * (2 * self.radius / size) + self.radius * (1 / size - 1) + self.center

    def rays(self, origins: Tensor, directions: Tensor) -> Rays:
        """Rays (N) in grid coordinates; origins and directions (N, 3) in world coordinates, of any length."""
        directions = nn.functional.normalize(directions, dim=-1)
        along = directions * self._scale()[0]
        length = along.norm(dim=-1).reciprocal()
        return Rays(self.to_grid(origins), along * length[:, None], self._basis(directions), length)

    def _basis(self, directions: Tensor) -> Tensor:
        return sh_basis(directions)[:, : self.sh.shape[1] // 3]

    # Reading

    @property
    def field(self) -> Field:
        """What rays march through."""
        return Field(self.links, self.density, self.sh, self.levels)

    def sample(self, points: Tensor, *, grid_coordinates: bool = False) -> tuple[Tensor, Tensor]:
        """Densities (M, 1) and coefficients (M, 3 B) at points (M, 3); empty voxels count as 0."""
        place = points if grid_coordinates else self.to_grid(points)
        return sparse_trilinear(self.links, self.density, place), sparse_trilinear(self.links, self.sh, place)

    def march(self, origins: Tensor, directions: Tensor, march: March = PLAIN_MARCH) -> tuple[Tensor, Tensor, Tensor]:
        """Colours (N, 3), light left (N,) and depth (N,) of rays; see :func:`perception.ops.march_rays.march_rays`."""
        return march_rays(self.field, self.rays(origins, directions), march)

    # Training

    @torch.no_grad()
    def squared_error_step(
        self, origins: Tensor, directions: Tensor, target: Tensor, march: March, sparsity: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Colours (N, 3) of rays, and the voxels (V,) that they touch; sets the gradients of their mean squared error.

        Args:
            origins, directions: (N, 3), world coordinates.
            target: colours (N, 3).
            march: how rays are marched.
            sparsity: weight of the Cauchy loss of densities, summed over samples.
        """
        rays = self.rays(origins, directions)
        field = Field(self.links, self.density.detach(), self.sh.detach(), self.levels)
        rgb, _, _ = march_rays(field, rays, march)
        grad = (rgb - target) * (2 / target.numel())
        self.density.grad, self.sh.grad, touched = march_gradient(field, rays, march, rgb, grad, sparsity)
        return rgb, touched

    @torch.no_grad()
    def add_total_variation(
        self, cells: Tensor, density: float, sh: float, touched: tuple[Tensor, Tensor], legacy: bool = False
    ) -> None:
        """Add the gradients of total variation in some cells; see
        :func:`perception.ops.sparse_total_variation.sparse_total_variation_add_grad_`.

        Args:
            cells: flat numbers of voxels (M,), as from :func:`run_of_cells`.
            density, sh: weights.
            touched: voxels (V,) whose densities and whose coefficients have gradients; added to.
            legacy: as the published kernels at the end of the grid.
        """
        for table, mask, weight, level in ((self.density, touched[0], density, False), (self.sh, touched[1], sh, True)):
            if weight > 0:
                sparse_total_variation_add_grad_(
                    self.links, table.detach(), table.grad, mask, cells, weight, level_edges=level, legacy=legacy
                )

    # Changing which voxels exist

    @torch.no_grad()
    def dilate(self, times: int) -> None:
        """Add the voxels around those that exist; what is new is 0."""
        before = self.active
        self._keep(dilate_mask(before, times), before)

    @torch.no_grad()
    def sparsify(self, threshold: float, dilate: int) -> None:
        """Leave only voxels of at least this density and ``dilate`` layers around them, of the same resolution.

        Voxels that exist keep their values; those that the dilation adds are 0.
        """
        before = self.active
        dense = before.clone()
        dense[before] = self.density.detach()[:, 0] >= threshold
        self._keep(dilate_mask(dense, dilate), before)

    def _keep(self, after: Tensor, before: Tensor) -> None:
        """Make another mask the active one; both are bool (X, Y, Z)."""
        old_in_new, new_in_old = before[after], after[before]
        tables = []
        for table in (self.density, self.sh):
            values = table.new_zeros(len(old_in_new), table.shape[1])
            values[old_in_new] = table.detach()[new_in_old]
            tables.append(values)
        self.replace(after, *tables)

    @torch.no_grad()
    def resample(self, size: Sequence[int], threshold: float, dilate: int, most: int = 44_000_000) -> None:
        """Another resolution: voxels whose interpolated density reaches ``threshold``, and ``dilate`` layers around.

        Args:
            size: voxels along x, y and z.
            threshold: raised where more than ``most`` voxels would be kept, so that these are.
            dilate: layers.
            most: voxels, before dilation.
        """
        size = tuple(size)
        if size == self.size:
            self.sparsify(self._bounded(self.density.detach()[:, 0], threshold, most), dilate)
            return
        axes = [_centres(old, new, self.density) for old, new in zip(self.size, size)]
        density = torch.cat([self._density_at(part) for part in _grid_points(axes, self.density)])
        kept = density >= self._bounded(density, threshold, most)
        active = dilate_mask(kept.view(size), dilate)
        place = active.nonzero()
        points = torch.stack([axis[place[:, number]] for number, axis in enumerate(axes)], -1)
        parts = [self.sample(part, grid_coordinates=True) for part in points.split(_POINTS_AT_ONCE)]
        empty = (self.density.detach()[:0], self.sh.detach()[:0])
        self.replace(active, *(torch.cat(values) for values in zip(empty, *parts)))

    def _density_at(self, points: Tensor) -> Tensor:
        return sparse_trilinear(self.links, self.density.detach(), points)[:, 0]

    @staticmethod
    def _bounded(density: Tensor, threshold: float, most: int) -> float:
        if int((density >= threshold).sum()) <= most:
            return threshold
        return float(density.topk(most).values[-1])


def run_of_cells(voxels: int, share: float, generator: torch.Generator) -> Tensor:
    """Flat numbers of ``share`` of a grid's voxels, at least one: a run from a random start that wraps at the end."""
    count = max(1, int(share * voxels))
    start = int(torch.randint(voxels, (1,), generator=generator))
    return torch.arange(start, start + count) % voxels


def empty_levels(active: Tensor, most: int = 5) -> Tensor:
    """How much empty space is around each cell, uint8 (X, Y, Z); see :class:`perception.ops.march_rays.Field`.

    Args:
        active: voxels that exist, bool (X, Y, Z).
        most: greatest level.
    """
    occupied = active
    for axis in range(3):  # a cell has the voxels i and i + 1 along each axis
        shifted = occupied.clone()
        shifted.narrow(axis, 0, shifted.shape[axis] - 1).logical_or_(occupied.narrow(axis, 1, occupied.shape[axis] - 1))
        occupied = shifted
    levels = occupied.logical_not().to(torch.uint8)
    block = occupied
    for level in range(1, most):
        if min(block.shape) == 1:
            break
        block = _halve(block)
        wide = block.logical_not()
        for axis, size in enumerate(active.shape):
            wide = wide.repeat_interleave(1 << level, axis).narrow(axis, 0, size)
        levels += wide
    return levels


def _halve(mask: Tensor) -> Tensor:
    """Whether any of each aligned 2 x 2 x 2 voxels is marked."""
    padded = nn.functional.pad(mask, [value for size in reversed(mask.shape) for value in (0, size % 2)])
    x, y, z = (size // 2 for size in padded.shape)
    return padded.view(x, 2, y, 2, z, 2).any(5).any(3).any(1)


def _centres(old: int, new: int, like: Tensor) -> Tensor:
    """Where the centres of ``new`` voxels lie among ``old`` ones."""
    edge = 0.5 * old / new
    return torch.linspace(edge - 0.5, old - edge - 0.5, new, device=like.device)


def _grid_points(axes: Sequence[Tensor], like: Tensor):
    """The points of a grid in row-major order, in slabs (M, 3) along x."""
    slab = max(1, _POINTS_AT_ONCE // (len(axes[1]) * len(axes[2])))
    for xs in axes[0].split(slab):
        yield torch.stack(torch.meshgrid(xs, axes[1], axes[2], indexing="ij"), -1).reshape(-1, 3)
