"""Inverse mean residual colour: how well a density field fits posed images, measured without a scan.

With the right geometry, the colours that cameras see at a point of a surface are a function of direction that changes
slowly. A fit of spherical harmonics in closed form takes that part away; what is left is the residual.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from scipy.ndimage import distance_transform_cdt
from torch import Tensor

from perception.radiance.spherical_harmonics import spherical_harmonics

SMALLEST = 1e-12
"""Smallest mean residual: the score of a perfect fit is 120 dB."""
PAIRS_AT_ONCE = 1 << 21
NEAR = 1.0  # distance of the near plane of normalised device coordinates
Background = Literal["high-frequency", "white", "black"]


class Box(NamedTuple):
    """What a volume fills, in world units."""

    center: Tensor  # (3,)
    radius: Tensor  # (3,) half of its sides


class Views(NamedTuple):
    """Q posed images, of any sizes."""

    images: Sequence[Tensor]  # (H, W, 3) from 0 to 1
    intrinsics: Tensor  # (Q, 3, 3) in pixels; whole numbers are the centres of pixels
    poses: Tensor  # (Q, 4, 4) or (Q, 3, 4) camera to world, OpenCV axes


class Imrc(NamedTuple):
    """What :func:`imrc` finds of a volume (X, Y, Z)."""

    score: float  # dB, higher is better
    residual: Tensor  # (X, Y, Z) alpha times the weighted squared residual of a voxel, summed over views and colours
    weight: Tensor  # (X, Y, Z) alpha times the transmittances of a voxel, summed over views


class VoxelFit(NamedTuple):
    """Closed-form colours of N voxels from Q views."""

    coefficients: Tensor  # (N, 3, B) of the colour less 0.5, for B harmonics
    residual: Tensor  # (N,)
    weight: Tensor  # (N,)


def imrc(
    volume: Tensor,
    box: Box,
    views: Views,
    *,
    step: float = 0.5,
    sh_degree: int = 2,
    near_clip: float = 0.0,
    sigma_thresh: float = 1e-8,
    stop_thresh: float = 1e-7,
    ndc: tuple[float, float] | None = None,
    progress: Callable[[int], object] = lambda voxels: None,
) -> Imrc:
    """Score a density volume.

    Args:
        volume: (X, Y, Z) density in 1 / world unit at the centres of voxels.
        box: that they fill.
        views: any number of images.
        step: distance of samples along rays, in voxels.
        sh_degree: of the harmonics, from 0 to 4.
        near_clip: world distance from a camera within which it sees nothing: no voxel, and none that hides others.
        sigma_thresh: density up to which a voxel is empty, as if its density were 0.
        stop_thresh: transmittance below which a voxel counts as hidden.
        ndc: ``2 fx / width`` and ``2 fy / height`` where the volume lies in normalised device coordinates (near plane
            at 1, y downwards, z' = 1 - 2 / z); cameras are in the world.
        progress: is told the number of voxels that have been done since.

    Raises:
        ValueError: shapes do not fit, values are not finite, or no voxel has density.

    The opacity that weighs voxels uses the edge along x alone, as the released code does; it matters only for voxels
    that are not cubes. The score depends on resolution, box, views and the axes of the world (through the order of the
    harmonics): compare at equal settings.

    Source: Fang et al., Evaluate Geometry of Radiance Fields with Low-Frequency Color Prior (arXiv 2304.04351).

    Example:
        >>> volume = torch.zeros(4, 4, 4)
        >>> volume[1:3, 1:3, 1:3] = 50.0
        >>> pose = torch.eye(4)[None].clone()
        >>> pose[0, 2, 3] = -3.0
        >>> intrinsics = torch.tensor([[[20.0, 0.0, 16.0], [0.0, 20.0, 16.0], [0.0, 0.0, 1.0]]])
        >>> box = Box(torch.zeros(3), torch.ones(3))
        >>> grey = Views([torch.full((32, 32, 3), 0.5)], intrinsics, pose)
        >>> imrc(volume, box, grey).score
        120.0
    """
    _check(volume, box, views, step)
    march = VoxelMarch(volume, box, step, near_clip, sigma_thresh, stop_thresh, ndc)
    occupied = (volume > sigma_thresh).nonzero()  # (V, 3)
    if not len(occupied):
        raise ValueError(f"no voxel has a density above {sigma_thresh:g}: the field is empty within the box")
    edge = 2 * float(box.radius[0]) / volume.shape[0]
    alpha = -torch.expm1(-volume[volume > sigma_thresh].double() * step * edge)
    fits = []
    for voxels in occupied.split(max(1, PAIRS_AT_ONCE // len(views.images))):
        fits.append(fit_voxels(march, voxels, views, sh_degree)[1:])
        progress(len(voxels))
    residual, weight = (alpha * torch.cat(part).double() for part in zip(*fits))
    mean = float(residual.sum() / (weight.sum() + 1e-9))
    volumes = [torch.zeros_like(volume, dtype=torch.float32) for _ in range(2)]
    for filled, values in zip(volumes, (residual, weight)):
        filled[tuple(occupied.T)] = values.float()
    return Imrc(-10 * math.log10(max(mean, SMALLEST)), *volumes)


def fit_voxels(march: VoxelMarch, voxels: Tensor, views: Views, sh_degree: int = 2) -> VoxelFit:
    """Fit harmonics to what views see at the centres of voxels (N, 3), one coefficient after the other.

    It is a Monte-Carlo projection on the running residual, not least squares.
    """
    grid = voxels.to(march.volume)
    world = march.to_world(grid)
    poses = views.poses.to(march.volume)
    colours, weights, bases = [], [], []
    for image, intrinsics, pose in zip(views.images, views.intrinsics.to(march.volume), poses):
        colour, valid = seen_colours(image.to(march.volume), intrinsics, pose, world)
        weight = torch.zeros_like(world[:, 0])
        origin, direction = march.rays(pose[:3, 3], grid, world)
        # Only what the image shows needs to be marched to.
        where = valid.nonzero()[:, 0]
        if len(where):
            weight[where] = march.transmittance(origin if origin.dim() == 1 else origin[where], grid[where])
        colours.append(colour)
        weights.append(weight)
        bases.append(spherical_harmonics(direction, sh_degree + 1))
    left, weight, basis = torch.stack(colours), torch.stack(weights), torch.stack(bases)  # (Q, N, 3), (Q, N), (Q, N, B)
    total = weight.sum(0)
    coefficients = []
    for function in basis.unbind(-1):
        found = 4 * math.pi / (total + 1e-9)[:, None] * ((weight * function)[..., None] * left).sum(0)  # (N, 3)
        left = left - found * function[..., None]
        coefficients.append(found)
    return VoxelFit(torch.stack(coefficients, -1), (weight * left.square().sum(-1)).sum(0), total)


def seen_colours(image: Tensor, intrinsics: Tensor, pose: Tensor, world: Tensor) -> tuple[Tensor, Tensor]:
    """Colours (N, 3) less 0.5 that an image (H, W, 3) has at world points (N, 3), and whether it shows them (N,).

    Points closer than 0.01 and those within a pixel or two of the border are not shown; their colour is 0.
    """
    height, width = image.shape[:2]
    camera = (world - pose[:3, 3]) @ pose[:3, :3]
    ahead = camera[:, 2] > 0.01
    x, y, z = (camera @ intrinsics.T).unbind(-1)
    z = torch.where(ahead, z, 1)
    x, y = x / z, y / z
    shown = ahead & (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
    x, y = torch.where(shown, x, 0), torch.where(shown, y, 0)
    left, top = x.floor(), y.floor()
    right, low = (x - left)[:, None], (y - top)[:, None]
    flat, first = image.reshape(-1, 3), top.long() * width + left.long()
    right_of, below = min(1, width - 1), width if height > 1 else 0
    upper = flat[first] * (1 - right) + flat[first + right_of] * right
    lower = flat[first + below] * (1 - right) + flat[first + below + right_of] * right
    colour = upper * (1 - low) + lower * low - 0.5
    return torch.where(shown[:, None], colour, 0), shown


class VoxelMarch:
    """The samples between cameras and voxels; see :func:`imrc` for the arguments."""

    def __init__(
        self,
        volume: Tensor,
        box: Box,
        step: float,
        near_clip: float = 0.0,
        sigma_thresh: float = 1e-8,
        stop_thresh: float = 1e-7,
        ndc: tuple[float, float] | None = None,
    ):
        self.volume = torch.where(volume > sigma_thresh, volume, 0).float().contiguous()
        self.step, self.near, self.ndc = step, near_clip, ndc
        self.sigma_thresh, self.stop = sigma_thresh, -math.log(stop_thresh)
        self.size = self.volume.new_tensor(volume.shape)
        self.center, self.radius = (part.to(self.volume) for part in box)
        # How many voxels away the nearest one with density is: steps of that length less one may be left out.
        occupied = (self.volume > 0).cpu().numpy()
        away = torch.from_numpy(distance_transform_cdt(~occupied, metric="chessboard")) if occupied.any() else None
        reach = torch.zeros(volume.shape) if away is None else away.float()
        self.skip = ((reach - 2).clamp(min=0) / step).floor().to(self.volume.device).view(-1)
        self.strides = (volume.shape[1] * volume.shape[2], volume.shape[2], 1)
        # Of a cell with the number i, the corner k has the density corners[k][i].
        self.corners = [
            self.volume.view(-1)[sum(stride * up for stride, up in zip(self.strides, corner)) :]
            for corner in itertools.product((0, 1), repeat=3)
        ]
        self.last = self.size[:, None] - 1

    def to_world(self, grid: Tensor) -> Tensor:
        """World points (N, 3) of grid coordinates, whose whole numbers are centres of voxels."""
        points = grid * (2 * self.radius / self.size) + self.radius * (1 / self.size - 1) + self.center
        if self.ndc is None:
            return points
        x, y, z = points.unbind(-1)
        # Infinity is not in front of any pixel; a point behind it would be.
        depth = 2 * NEAR / (1 - z).clamp(min=1e-6)
        return torch.stack([x * depth / self.ndc[0], y * depth / self.ndc[1], depth], -1)

    def rays(self, camera: Tensor, grid: Tensor, world: Tensor) -> tuple[Tensor, Tensor]:
        """Origin (3,) or (N, 3), in grid coordinates, and unit directions (N, 3) from a camera to voxels, in the space
        of the volume."""
        if self.ndc is None:
            origin, target = camera, world
        else:
            towards = world - camera
            away = torch.where(towards[:, 2:].abs() > 1e-6, towards[:, 2:], 1e-6)
            start = camera + towards * ((NEAR - camera[2]) / away)
            scale = start.new_tensor(self.ndc)
            origin = torch.cat([start[:, :2] * scale / NEAR, torch.full_like(start[:, 2:], -1.0)], -1)
            target = grid * (2 * self.radius / self.size) + self.radius * (1 / self.size - 1) + self.center
        direction = torch.nn.functional.normalize(target - origin, dim=-1)
        shift = 0.5 * (1 - self.center / self.radius) * self.size - 0.5
        return origin * (0.5 / self.radius * self.size) + shift, direction

    def transmittance(self, origin: Tensor, grid: Tensor) -> Tensor:
        """What is left (N,) of light from voxels (N, 3) at a camera (3,) or at places (N, 3), in grid coordinates.

        The samples of a ray are those of a march from its entry into the box. Their sum is taken from the voxel on,
        since what hides a voxel mostly lies close to it. Of a voxel before the near plane nothing is left.
        """
        along = (grid - origin).T.contiguous()  # (3, N)
        distance = along.square().sum(0).sqrt().clamp(min=1e-12)  # voxels
        direction = along / distance
        edges = (2 * self.radius / self.size)[:, None]
        length = (direction * edges).square().sum(0).sqrt()  # world units of a voxel's length
        origin = origin[:, None] if origin.dim() == 1 else origin.T
        start = torch.maximum(self._entry(origin, direction), self.near / length)
        number = ((distance - start) / self.step).floor()  # of the last sample
        near = number < 0
        ray = (~near).nonzero()[:, 0]
        first = torch.addcmul(origin, start, direction).index_select(1, ray)  # (3, M)
        stride = direction.index_select(1, ray).mul_(self.step)
        number, factor = number[ray], self.step * length[ray]
        optical, absorbed = torch.zeros_like(distance), torch.zeros_like(number)
        while len(ray):
            position = torch.addcmul(first, stride, number).clamp_(min=0)
            position = torch.minimum(position, self.last, out=position)
            cell = torch.minimum(position.floor(), self.last - 1)
            index = cell[0].long().mul_(self.strides[0])
            index.add_(cell[1].long(), alpha=self.strides[1]).add_(cell[2].long())
            skip = self.skip.index_select(0, index)
            sigma = self._sample(index, position.sub_(cell))
            absorbed.addcmul_(sigma, factor)
            number.sub_(skip.add_(1))
            going = (number >= 0).logical_and_(absorbed <= self.stop)
            if int(going.sum()) < 0.8 * len(ray):
                optical[ray] = absorbed
                left = going.nonzero()[:, 0]
                first, stride = first.index_select(1, left), stride.index_select(1, left)
                ray, number, factor, absorbed = ray[left], number[left], factor[left], absorbed[left]
            else:  # those that are done stay as they are until many are
                number.masked_fill_(~going, -1)
                factor.masked_fill_(~going, 0)
        return torch.where((optical > self.stop) | near, 0, torch.exp(-optical))

    def _sample(self, index: Tensor, upper: Tensor) -> Tensor:
        """Densities (M,) in cells at places (3, M) within them; 0 where they do not exceed the threshold."""
        values = [corner.index_select(0, index) for corner in self.corners]
        for share in upper.flip(0):
            values = [torch.lerp(low, high, share) for low, high in zip(values[::2], values[1::2])]
        return values[0] * (values[0] > self.sigma_thresh)

    def _entry(self, origin: Tensor, direction: Tensor) -> Tensor:
        """Where rays, (3, 1) or (3, N) and (3, N), enter the box, in voxels (N,); 0 where they start inside."""
        bounds = torch.minimum((-0.5 - origin) / direction, (self.size[:, None] - 0.5 - origin) / direction)
        return torch.where(direction != 0, bounds, -torch.inf).amax(0).clamp(min=0)


def background_images(
    pictures: Sequence[Tensor], background: Background, *, normal: Literal["white", "black"] = "white"
) -> list[Tensor]:
    """Pictures (H, W, 4) with alpha, from 0 to 1, on a background (H, W, 3).

    ``"high-frequency"`` gives every second picture, from the second on, the complement of the ``normal`` background, so
    that density in empty space sees colours that alternate. White becomes black where alpha is 0, black becomes white.
    """
    placed = []
    for number, picture in enumerate(pictures):
        colour, alpha = picture[..., :3], picture[..., 3:]
        white = (normal if background == "high-frequency" else background) == "white"
        shown = colour * alpha + ((1 - alpha) if white else 0)
        if background == "high-frequency" and number % 2:
            outside = (alpha <= 0).to(shown)
            shown = shown * (1 - outside) if white else (shown + outside).clamp(max=1)
        placed.append(shown)
    return placed


def _check(volume: Tensor, box: Box, views: Views, step: float) -> None:
    if volume.dim() != 3 or min(volume.shape) < 2:
        raise ValueError(f"a volume has at least 2 voxels along each of 3 axes, not the shape {tuple(volume.shape)}")
    if not bool(torch.isfinite(volume).all()):
        raise ValueError("the volume holds densities that are not finite")
    if not all(part.shape == (3,) for part in box) or not bool((box.radius > 0).all()):
        raise ValueError(f"the box needs a center (3,) and a positive radius (3,), not {box.center} and {box.radius}")
    count = len(views.images)
    if not count:
        raise ValueError("there are no views")
    if len(views.intrinsics) != count or len(views.poses) != count:
        raise ValueError(f"{count} images, but {len(views.intrinsics)} intrinsics and {len(views.poses)} poses")
    for number, image in enumerate(views.images):
        if image.dim() != 3 or image.shape[2] != 3:
            raise ValueError(f"image {number} has the shape {tuple(image.shape)}, not (height, width, 3)")
    if not step > 0:
        raise ValueError(f"the step must be positive, not {step}")
