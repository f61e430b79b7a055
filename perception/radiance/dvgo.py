"""DirectVoxGO ("Direct Voxel Grid Optimization", CVPR 2022): a radiance field in two voxel grids and a small net."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from perception.radiance.activation import alpha_shift, raw2alpha
from perception.radiance.compositing import alphas_to_weights, segment_sum
from perception.radiance.encodings import frequency_bands, positional_encoding
from perception.radiance.grids import DenseGrid, MaskGrid, grid_resolution
from perception.radiance.sampling import RaySamples, sample_occupied, sample_rays
from perception.radiance.voxel_field import VoxelField


@dataclass(frozen=True, eq=False)
class DvgoRendering(Mapping[str, Tensor]):
    """N rendered rays, and the M samples that made them, sorted by ray, then from near to far.

    The names are those of the released code, whose outputs are a dictionary; this can be read as one, too.
    """

    rgb_marched: Tensor  # (N, 3) colours in [0, 1]
    alphainv_last: Tensor  # (N,) light from the background
    depth: Tensor  # (N,) expected number of steps since the ray entered the box; no gradient
    distance: Tensor  # (N,) expected distance from the origin in world units; no gradient
    weights: Tensor  # (M,)
    raw_alpha: Tensor  # (M,)
    raw_rgb: Tensor  # (M, 3)
    density: Tensor  # (M,)
    ray_id: Tensor  # (M,) int64
    step_id: Tensor  # (M,) int64

    def __getitem__(self, name: str) -> Tensor:
        if name not in self:
            raise KeyError(name)
        return getattr(self, name)

    def __contains__(self, name: object) -> bool:
        return name in self.__dataclass_fields__

    def __iter__(self) -> Iterator[str]:
        return (entry.name for entry in fields(self))

    def __len__(self) -> int:
        return len(fields(self))


class DirectVoxGO(VoxelField):
    """A voxel radiance field inside a box.

    The state dict has the names of the released checkpoints: ``density.grid`` (1, 1, X, Y, Z), ``k0.grid``
    (1, C, X, Y, Z), ``rgbnet.*``, ``act_shift``, ``mask_cache.*``.

    Args:
        xyz_min, xyz_max: corners of the box in world units.
        num_voxels: about how many voxels each grid has, see :func:`~perception.radiance.grids.grid_resolution`.
        num_voxels_base: resolution to which ``alpha_init`` refers.
        alpha_init: opacity of a voxel whose density is 0, at the base resolution.
        fast_color_thres: samples whose opacity, or weight, is not above this are left out; none where it is 0.
        rgbnet_dim: channels of ``k0``; 0 makes ``k0`` the logit of a view-independent colour.
        rgbnet_direct: all of ``k0`` goes into the network; otherwise its first three channels are a diffuse logit that
            is added to the network's output, and the others go in.
        rgbnet_depth, rgbnet_width: layers and hidden width of the network.
        viewbase_pe: frequencies in the encoding of the viewing direction.
        align_corners: see :class:`~perception.radiance.grids.DenseGrid`.
        mask: cells that are not known to be free, (x, y, z) bool over the same box; all cells by default.
    """

    def __init__(
        self,
        xyz_min: Sequence[float] | Tensor,
        xyz_max: Sequence[float] | Tensor,
        *,
        num_voxels: int,
        num_voxels_base: int,
        alpha_init: float,
        fast_color_thres: float = 0.0,
        rgbnet_dim: int = 0,
        rgbnet_direct: bool = True,
        rgbnet_depth: int = 3,
        rgbnet_width: int = 128,
        viewbase_pe: int = 4,
        align_corners: bool = True,
        mask: Tensor | None = None,
    ):
        super().__init__()
        self.num_voxels_base = num_voxels_base
        self.alpha_init = alpha_init
        self.fast_color_thres = fast_color_thres
        self.rgbnet_dim, self.rgbnet_direct = rgbnet_dim, rgbnet_direct
        self.rgbnet_depth, self.rgbnet_width = rgbnet_depth, rgbnet_width
        self.viewbase_pe = viewbase_pe
        self.align_corners = align_corners
        # Everything starts on the CPU, wherever the corners were computed.
        self.register_buffer("xyz_min", torch.as_tensor(xyz_min, dtype=torch.float32).cpu().clone())
        self.register_buffer("xyz_max", torch.as_tensor(xyz_max, dtype=torch.float32).cpu().clone())
        self.register_buffer("act_shift", torch.tensor([alpha_shift(alpha_init)]))
        self._set_resolution(num_voxels)
        box = (self.xyz_min, self.xyz_max)
        self.density = DenseGrid(1, self.world_size, *box, align_corners=align_corners)
        self.k0 = DenseGrid(rgbnet_dim or 3, self.world_size, *box, align_corners=align_corners)
        self.rgbnet = None
        if rgbnet_dim:
            self.register_buffer("viewfreq", frequency_bands(viewbase_pe))
            self.rgbnet = self._make_rgbnet()
        self.mask_cache = MaskGrid(torch.ones(self.world_size, dtype=torch.bool) if mask is None else mask.cpu(), *box)

    def settings(self) -> dict[str, int | float | bool]:
        """The arguments, besides the box and the mask, that make a field like this one as it is now."""
        names = ("num_voxels", "num_voxels_base", "alpha_init", "fast_color_thres", "rgbnet_dim", "rgbnet_direct")
        names += ("rgbnet_depth", "rgbnet_width", "viewbase_pe", "align_corners")
        return {name: getattr(self, name) for name in names}

    def _make_rgbnet(self) -> nn.Sequential:
        view_channels = 3 + 3 * self.viewbase_pe * 2
        feature_channels = self.rgbnet_dim if self.rgbnet_direct else self.rgbnet_dim - 3
        width = self.rgbnet_width
        hidden = [nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True)) for _ in range(self.rgbnet_depth - 2)]
        net = nn.Sequential(
            nn.Linear(view_channels + feature_channels, width), nn.ReLU(inplace=True), *hidden, nn.Linear(width, 3)
        )
        nn.init.zeros_(net[-1].bias)
        return net

    def _set_resolution(self, num_voxels: int) -> None:
        self.num_voxels = num_voxels
        self.voxel_size, self.world_size = grid_resolution(self.xyz_min, self.xyz_max, num_voxels)
        base_size, _ = grid_resolution(self.xyz_min, self.xyz_max, self.num_voxels_base)
        self.voxel_size_ratio = self.voxel_size / base_size

    # Rendering

    def forward(
        self,
        rays_o: Tensor,
        rays_d: Tensor,
        viewdirs: Tensor,
        *,
        near: float,
        bg: float | Tensor = 1.0,
        stepsize: float = 0.5,
        bounds: tuple[Tensor, Tensor] | None = None,
    ) -> DvgoRendering:
        """Render rays. Depth and distance are not divided by a ray's opacity.

        Args:
            rays_o, rays_d: (N, 3) origins and directions in world units; directions need not have length 1.
            viewdirs: (N, 3) directions of length 1.
            near: smallest ray parameter, in units of ``|rays_d|``. A ray ends where it leaves the box.
            bg: background colour in [0, 1]: one number or (3,).
            stepsize: distance between samples in voxels.
            bounds: (N,) smallest and largest distance from the origin, in world units; other samples are left out.
        """
        num_rays = len(rays_o)
        samples, corners, density, alpha = self._opaque_samples(rays_o, rays_d, near, stepsize, bounds)
        weights, alphainv_last = alphas_to_weights(alpha, samples.ray_id, num_rays)
        # A test by index keeps the gradient of what is dropped at zero, as a test by multiplication would not.
        keep = self._counting(weights)
        weights, ray_id, step_id = weights[keep], samples.ray_id[keep], samples.step_id[keep]
        rgb = self.colours(self.k0.at(corners[keep]), viewdirs, ray_id)
        rgb_marched = segment_sum(weights[:, None] * rgb, ray_id, num_rays) + alphainv_last[:, None] * bg
        with torch.no_grad():
            steps = segment_sum(weights * step_id, ray_id, num_rays)
            entry = samples.t_min * rays_d.norm(dim=-1)
            distance = steps * stepsize * self.voxel_size + entry * segment_sum(weights, ray_id, num_rays)
        return DvgoRendering(
            rgb_marched=rgb_marched,
            alphainv_last=alphainv_last,
            depth=steps,
            distance=distance,
            weights=weights,
            raw_alpha=alpha[keep],
            raw_rgb=rgb,
            density=density[keep],
            ray_id=ray_id,
            step_id=step_id,
        )

    def colours(self, features: Tensor, viewdirs: Tensor, ray_id: Tensor) -> Tensor:
        """Colours (M, 3) in [0, 1] of samples with features (M, C) on rays whose directions (N, 3) have length 1."""
        if self.rgbnet is None:
            return features.sigmoid()
        view = positional_encoding(viewdirs, self.viewfreq)[ray_id]  # (M, 3 + 6 * F)
        if self.rgbnet_direct:
            return self.rgbnet(torch.cat([features, view], -1)).sigmoid()
        return (self.rgbnet(torch.cat([features[:, 3:], view], -1)) + features[:, :3]).sigmoid()

    def sample_ray(self, rays_o: Tensor, rays_d: Tensor, *, near: float, stepsize: float) -> RaySamples:
        """The samples of rays that lie in the box and in a cell that is not known to be free."""
        stepdist = float(stepsize * self.voxel_size)
        box = (self.xyz_min, self.xyz_max)
        if bool(self.mask_cache.mask.all()):
            samples = sample_rays(rays_o, rays_d, *box, near=near, stepdist=stepdist)
            return samples.select(self.mask_cache(samples.points))
        return sample_occupied(rays_o, rays_d, *box, self.mask_cache, near=near, stepdist=stepdist)

    def _opaque_samples(
        self,
        rays_o: Tensor,
        rays_d: Tensor,
        near: float,
        stepsize: float,
        bounds: tuple[Tensor, Tensor] | None = None,
    ):
        samples = self.sample_ray(rays_o, rays_d, near=near, stepsize=stepsize)
        if bounds is not None:
            entry = samples.t_min * rays_d.norm(dim=-1)
            distance = entry[samples.ray_id] + samples.step_id * float(stepsize * self.voxel_size)
            low, high = (bound[samples.ray_id] for bound in bounds)
            samples = samples.select((distance >= low) & (distance <= high))
        corners = self.density.corners(samples.points)
        density = self.density.at(corners)[:, 0]
        alpha = self.activate(density, interval=stepsize * float(self.voxel_size_ratio))
        keep = self._counting(alpha)
        return samples.select(keep), corners[keep], density[keep], alpha[keep]

    @torch.no_grad()
    def ray_weights(self, rays_o: Tensor, rays_d: Tensor, *, near: float, stepsize: float):
        """The weight of every sample that counts in the rendering of rays, without colours.

        Returns:
            ``(corners, weights)``: the voxels around M samples and their weights (M,), those above
            ``fast_color_thres``.
        """
        samples, corners, _, alpha = self._opaque_samples(rays_o, rays_d, near, stepsize)
        weights, _ = alphas_to_weights(alpha, samples.ray_id, len(rays_o))
        keep = self._counting(weights)
        return corners[keep], weights[keep]

    @torch.no_grad()
    def hit_mask(self, rays_o: Tensor, rays_d: Tensor, *, near: float, stepsize: float) -> Tensor:
        """Which rays (N,) have a sample in a cell that is not known to be free."""
        hit = torch.zeros(len(rays_o), dtype=torch.bool, device=rays_o.device)
        hit[self.sample_ray(rays_o, rays_d, near=near, stepsize=stepsize).ray_id] = True
        return hit

    # Growing and masking

    def activate(self, density: Tensor, *, interval: float) -> Tensor:
        """Opacity of steps of length ``interval`` (in base voxels) through raw density, same shape."""
        return raw2alpha(density, self.act_shift, interval)

    @torch.no_grad()
    def alpha_at(self, points: Tensor) -> Tensor:
        density = torch.stack([self.density(plane) for plane in points])  # plane by plane bounds the memory
        return self.activate(density, interval=float(self.voxel_size_ratio))

    @torch.no_grad()
    def scale_volume_grid(self, num_voxels: int, *, largest_mask: int = 256**3) -> None:
        """Resample both grids to about ``num_voxels``, and the mask with them.

        The mask is recomputed only up to ``largest_mask`` voxels; beyond that it keeps its resolution.
        """
        self._set_resolution(num_voxels)
        self._scale_grids(self.world_size)
        if math.prod(self.world_size) > largest_mask:
            return
        alpha = self.activate(self.density.grid[0, 0], interval=float(self.voxel_size_ratio))
        self.set_mask(self.mask_cache(self.grid_points()) & (self._dilated_maximum(alpha) > self.fast_color_thres))
