"""DirectMPIGO: the variant of DirectVoxGO for forward-facing scenes, whose planes stand in normalised device space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from perception.radiance.activation import raw2alpha
from perception.radiance.compositing import alphas_to_weights, segment_sum
from perception.radiance.encodings import frequency_bands, positional_encoding
from perception.radiance.grids import DenseGrid, MaskGrid
from perception.radiance.total_variation import total_variation_add_grad
from perception.radiance.voxel_field import VoxelField

BASE_DEPTH = 256  # number of planes to which a step of one voxel refers
LARGEST_MASK = 256**3


class Gaussian(nn.Module):
    """The activation ``exp(-x ** 2 / (2 * sigma ** 2))`` with sigma 0.05."""

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return torch.exp(-x.square() / (2 * 0.05**2))


ACTIVATIONS = {"relu": nn.ReLU, "gauss": Gaussian, "lkrelu": nn.LeakyReLU}


class MpiRendering(NamedTuple):
    """N rendered rays, and the M samples that made them, sorted by ray, then from near to far."""

    rgb_feature: Tensor  # (N, 3) colours without a background
    rgb_marched: Tensor  # (N, 3) colours on the background
    alphainv_last: Tensor  # (N,) light from the background
    depth: Tensor  # (N,) expected place in [0, 1) between the first and the last plane; 0 for an empty ray; no gradient
    weights: Tensor  # (M,)
    raw_alpha: Tensor  # (M,)
    raw_rgb: Tensor  # (M, 3)
    density: Tensor  # (M,)
    s: Tensor  # (M,) place of a sample in (0, 1)
    ray_id: Tensor  # (M,)
    step_id: Tensor  # (M,)
    num_steps: int  # samples of a ray before any is dropped


class DirectMPIGO(VoxelField):
    """A voxel radiance field whose last axis counts planes of normalised device coordinates (DirectVoxGO, 4K-NeRF).

    The state dict has the names of the released checkpoints: ``density.grid`` (1, 1, X, Y, D), ``k0.grid``
    (1, C, X, Y, D), ``act_shift.grid`` (1, 1, 1, 1, D), ``rgbnet.*``, ``mask_cache.*``.

    Args:
        xyz_min, xyz_max: corners of the box in normalised device coordinates.
        num_voxels: about how many voxels each grid has.
        mpi_depth: D, planes; the rest of ``num_voxels`` is shared by x and y in the proportion of the box.
        fast_color_thres: samples whose opacity, or weight, is not above this are left out; none where it is 0.
        rgbnet_dim: channels of ``k0``; with 0 it has 3, which are colours before the sigmoid, and there is no network.
        rgbnet_depth, rgbnet_width: layers and hidden width of the colour network.
        viewbase_pe, spatial_pe: frequencies in the encodings of the viewing direction and of the position.
        act_type: activation of the colour network, ``"relu"``, ``"gauss"`` or ``"lkrelu"``.
        align_corners: see :class:`~perception.radiance.grids.DenseGrid`.
        mask: cells that are not known to be free, (x, y, z) bool over the same box; all cells by default.
        mask_counts_shift: look for free space with the opacities that are rendered. Without it
            :meth:`update_occupancy_cache` leaves the shifts of the planes out, as the released code does, and hardly
            finds any.

    Raises:
        ValueError: the box has no volume, or an axis would have no voxel.
    """

    def __init__(
        self,
        xyz_min: Sequence[float] | Tensor,
        xyz_max: Sequence[float] | Tensor,
        *,
        num_voxels: int,
        mpi_depth: int,
        fast_color_thres: float = 0.0,
        rgbnet_dim: int = 9,
        rgbnet_depth: int = 3,
        rgbnet_width: int = 64,
        viewbase_pe: int = 0,
        spatial_pe: int = 0,
        act_type: str = "relu",
        align_corners: bool = True,
        mask: Tensor | None = None,
        mask_counts_shift: bool = True,
    ):
        super().__init__()
        self.mpi_depth = mpi_depth
        self.fast_color_thres = fast_color_thres
        self.rgbnet_dim, self.rgbnet_depth, self.rgbnet_width = rgbnet_dim, rgbnet_depth, rgbnet_width
        self.viewbase_pe, self.spatial_pe = viewbase_pe, spatial_pe
        self.act_type = act_type
        self.align_corners, self.mask_counts_shift = align_corners, mask_counts_shift
        # Everything starts on the CPU, wherever the corners were computed.
        self.register_buffer("xyz_min", torch.as_tensor(xyz_min, dtype=torch.float32).cpu().clone())
        self.register_buffer("xyz_max", torch.as_tensor(xyz_max, dtype=torch.float32).cpu().clone())
        if rgbnet_dim:
            self.register_buffer("viewfreq", frequency_bands(viewbase_pe))
            self.register_buffer("posfreq", frequency_bands(spatial_pe))
        self._set_resolution(num_voxels)
        box = (self.xyz_min, self.xyz_max)
        self.density = DenseGrid(1, self.world_size, *box, align_corners=align_corners)
        self.k0 = DenseGrid(rgbnet_dim or 3, self.world_size, *box, align_corners=align_corners)
        self.act_shift = DenseGrid(1, (1, 1, mpi_depth), *box, align_corners=align_corners)
        self.act_shift.grid.data[0, 0, 0, 0] = plane_shifts(mpi_depth, self.voxel_size_ratio)
        self.act_shift.requires_grad_(False)
        self.rgbnet = self._make_rgbnet() if rgbnet_dim else None
        self.mask_cache = MaskGrid(torch.ones(self.world_size, dtype=torch.bool) if mask is None else mask.cpu(), *box)

    def settings(self) -> dict[str, int | float | bool | str]:
        """The arguments, besides the box and the mask, that make a field like this one as it is now."""
        names = ("num_voxels", "mpi_depth", "fast_color_thres", "rgbnet_dim", "rgbnet_depth", "rgbnet_width")
        names += ("viewbase_pe", "spatial_pe", "act_type", "align_corners", "mask_counts_shift")
        return {name: getattr(self, name) for name in names}

    @property
    def voxel_size_ratio(self) -> float:
        """Length of a step from plane to plane, in base steps."""
        return BASE_DEPTH / self.mpi_depth

    def _make_rgbnet(self) -> nn.Sequential:
        encoded = sum(3 + 3 * frequencies * 2 for frequencies in (self.spatial_pe, self.viewbase_pe))
        width, activation = self.rgbnet_width, ACTIVATIONS[self.act_type]
        hidden = [nn.Sequential(nn.Linear(width, width), activation()) for _ in range(self.rgbnet_depth - 2)]
        net = nn.Sequential(nn.Linear(self.rgbnet_dim + encoded, width), activation(), *hidden, nn.Linear(width, 3))
        nn.init.zeros_(net[-1].bias)
        return net

    def _set_resolution(self, num_voxels: int) -> None:
        self.num_voxels = num_voxels
        self.world_size = mpi_resolution(self.xyz_min, self.xyz_max, num_voxels, self.mpi_depth)

    # Rendering

    def forward(
        self,
        rays_o: Tensor,
        rays_d: Tensor,
        viewdirs: Tensor,
        *,
        bg: float | Tensor = 0.0,
        stepsize: float = 1.0,
        bounds: tuple[Tensor, Tensor] | None = None,
    ) -> MpiRendering:
        """Render rays from the near plane (ray parameter 0) to infinity (1).

        Args:
            rays_o, rays_d: (N, 3) origins and directions in normalised device coordinates.
            viewdirs: (N, 3) directions of length 1 *before* they were brought into these coordinates.
            bg: background colour: one number, (3,), or one for each ray, (N, 3).
            stepsize: distance between samples in planes.
            bounds: (N,) smallest and largest ray parameter; other samples are left out.
        """
        num_rays = len(rays_o)
        points, ray_id, step_id, num_steps = self.sample_ray(rays_o, rays_d, stepsize=stepsize)
        if bounds is not None:
            t, (low, high) = step_id / (num_steps - 1), (bound[ray_id] for bound in bounds)
            inside = ((t >= low) & (t <= high)).nonzero()[:, 0]
            points, ray_id, step_id = points[inside], ray_id[inside], step_id[inside]
        corners = self.density.corners(points)
        density = self.density.at(corners)[:, 0]
        alpha = self.activate(density + self.act_shift(points), interval=stepsize * self.voxel_size_ratio)
        keep = self._counting(alpha)
        points, ray_id, step_id = points[keep], ray_id[keep], step_id[keep]
        corners, density, alpha = corners[keep], density[keep], alpha[keep]
        weights, alphainv_last = alphas_to_weights(alpha, ray_id, num_rays)
        keep = self._counting(weights)
        weights, ray_id, step_id = weights[keep], ray_id[keep], step_id[keep]
        rgb = self.colours(self.k0.at(corners[keep]), points[keep], viewdirs, ray_id)
        rgb_feature = segment_sum(weights[:, None] * rgb, ray_id, num_rays)
        s = (step_id + 0.5) / num_steps
        return MpiRendering(
            rgb_feature=rgb_feature,
            rgb_marched=rgb_feature + alphainv_last[:, None] * bg,
            alphainv_last=alphainv_last,
            depth=segment_sum(weights.detach() * s, ray_id, num_rays),
            weights=weights,
            raw_alpha=alpha[keep],
            raw_rgb=rgb,
            density=density[keep],
            s=s,
            ray_id=ray_id,
            step_id=step_id,
            num_steps=num_steps,
        )

    def colours(self, features: Tensor, points: Tensor, viewdirs: Tensor, ray_id: Tensor) -> Tensor:
        """Colours (M, 3) in [0, 1] of samples with features (M, C) at points (M, 3) on rays of directions (N, 3)."""
        if self.rgbnet is None:
            return features.sigmoid()
        unit = ((points - self.xyz_min) / (self.xyz_max - self.xyz_min)).flip(-1) * 2 - 1  # (z, y, x) in [-1, 1]
        position = positional_encoding(unit, self.posfreq)
        view = positional_encoding(viewdirs, self.viewfreq)[ray_id]
        return self.rgbnet(torch.cat([features, position, view], -1)).sigmoid()

    @torch.no_grad()
    def sample_ray(self, rays_o: Tensor, rays_d: Tensor, *, stepsize: float) -> tuple[Tensor, Tensor, Tensor, int]:
        """The samples of rays (N) that lie in the box and in a cell that is not known to be free.

        Returns:
            Points (M, 3), ray and step of each (M,), and how many steps a ray has.
        """
        num_steps = int((self.mpi_depth - 1) / stepsize) + 1
        t = torch.arange(num_steps, device=rays_o.device) / (num_steps - 1)
        points = rays_o[:, None] + rays_d[:, None] * t[:, None]  # (N, S, 3)
        keep = ((points >= self.xyz_min) & (points <= self.xyz_max)).all(-1)
        ray_id, step_id = keep.nonzero(as_tuple=True)
        points = points[ray_id, step_id]
        marked = self.mask_cache(points).nonzero()[:, 0]
        return points[marked], ray_id[marked], step_id[marked], num_steps

    # Growing and masking

    def activate(self, shifted: Tensor, *, interval: float) -> Tensor:
        """Opacity of steps of length ``interval`` (in base steps) through density whose shift was added."""
        return raw2alpha(shifted, 0.0, interval)

    @torch.no_grad()
    def alpha_at(self, points: Tensor) -> Tensor:
        # Plane by plane bounds the memory.
        density = torch.stack([self.density(plane) for plane in points])
        if self.mask_counts_shift:
            density += torch.stack([self.act_shift(plane) for plane in points])
        return self.activate(density, interval=self.voxel_size_ratio)

    @torch.no_grad()
    def scale_volume_grid(self, num_voxels: int) -> None:
        """Resample both grids to about ``num_voxels`` with as many planes, and the mask with them.

        The mask is recomputed only up to 256 ** 3 voxels; beyond that it keeps its resolution.
        """
        self._set_resolution(num_voxels)
        self._scale_grids(self.world_size)
        if math.prod(self.world_size) > LARGEST_MASK:
            return
        alpha = self.activate(self.density.grid[0, 0] + self.act_shift.grid[0, 0], interval=self.voxel_size_ratio)
        self.set_mask(self.mask_cache(self.grid_points()) & (self._dilated_maximum(alpha) > self.fast_color_thres))

    def total_variation_weights(self, weight: float) -> tuple[float, float, float]:
        """Weights of differences along x, y and z that make ``weight`` independent of the resolution."""
        across = weight * max(self.world_size[:2]) / 128
        return across, across, weight * self.mpi_depth / 128

    def density_total_variation_add_grad(self, weight: float, *, dense: bool, released_axes: bool = False) -> None:
        """Add the gradient of the density's total variation, see :func:`total_variation_add_grad`.

        Args:
            weight: in the measure of 128 voxels per axis.
            dense: add to all entries, not only to those with a gradient.
            released_axes: weight x as z and z as x, as the released kernel does.
        """
        self._add_total_variation(self.density, weight, dense, released_axes)

    def k0_total_variation_add_grad(self, weight: float, *, dense: bool, released_axes: bool = False) -> None:
        """The same for the features."""
        self._add_total_variation(self.k0, weight, dense, released_axes)

    def _add_total_variation(self, grid: DenseGrid, weight: float, dense: bool, released_axes: bool) -> None:
        weights = self.total_variation_weights(weight)
        total_variation_add_grad(grid.grid, weights[::-1] if released_axes else weights, dense=dense)


def mpi_resolution(xyz_min: Tensor, xyz_max: Tensor, num_voxels: int, mpi_depth: int) -> tuple[int, int, int]:
    """Voxels per axis of a grid of ``mpi_depth`` planes with about ``num_voxels``, whose cells are square in x and y.

    Raises:
        ValueError: the box has no volume, there are fewer than two planes, or an axis would have no voxel.

    Example:
        >>> mpi_resolution(torch.zeros(3), torch.tensor([4.0, 1.0, 1.0]), num_voxels=16 * 100, mpi_depth=16)
        (20, 5, 16)
    """
    extent = xyz_max - xyz_min
    if not bool((extent > 0).all() and extent.isfinite().all()):
        raise ValueError(f"a grid needs a box with a volume, got {xyz_min.tolist()} to {xyz_max.tolist()}")
    if mpi_depth < 2:
        raise ValueError(f"a grid needs at least 2 planes, not {mpi_depth}")
    per_unit = (num_voxels / mpi_depth / extent[:2].prod()).sqrt()
    x, y = (extent[:2] * per_unit).long().tolist()
    if min(x, y) < 1:
        raise ValueError(f"{num_voxels} voxels are too few for {mpi_depth} planes of {extent[:2].tolist()}")
    return x, y, mpi_depth


def plane_shifts(mpi_depth: int, voxel_size_ratio: float) -> Tensor:
    """What is added to the density of each plane (D,), so that planes of density 0 have the same weight, ``1 / D``."""
    share = 1 / mpi_depth - 1e-6
    left = [1 - share]  # light that passes a plane
    left += [(1 - (plane + 1) * share) / (1 - plane * share) for plane in range(1, mpi_depth)]
    return torch.tensor([math.log(passing ** (-1 / voxel_size_ratio) - 1) for passing in left])
