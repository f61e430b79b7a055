"""Rays through the pixels of a pinhole camera, and the normalised device coordinates of forward-facing scenes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Convention = Literal["opengl", "opencv"]


def pixel_rays(
    height: int, width: int, intrinsics: Tensor, c2w: Tensor, *, convention: Convention = "opengl"
) -> tuple[Tensor, Tensor]:
    """Rays through the centres of all pixels of one image.

    Args:
        height, width: image size in pixels.
        intrinsics: (3, 3) pinhole matrix in pixels; skew is not supported.
        c2w: (3, 4) or (4, 4) camera-to-world pose.
        convention: axes of the camera frame, ``"opengl"`` (x right, y up, looking along -z) or ``"opencv"`` (x right, y
            down, looking along +z).

    Returns:
        ``rays_o`` and ``rays_d``, both (height, width, 3) in the type of ``c2w``. Directions are *not* normalised:
        their component along the viewing axis is 1, so that a ray parameter is a depth.

    Raises:
        ValueError: a focal length is not positive.

    Example:
        >>> intrinsics = torch.tensor([[2.0, 0.0, 1.0], [0.0, 2.0, 1.0], [0.0, 0.0, 1.0]])  # a focal length of 2 pixels
        >>> origins, directions = pixel_rays(2, 2, intrinsics, torch.eye(4), convention="opencv")
        >>> directions[0, 1]  # the upper right pixel
        tensor([ 0.2500, -0.2500,  1.0000])
    """
    fx, fy, cx, cy = (float(intrinsics[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    if not (fx > 0 and fy > 0):
        raise ValueError(f"focal lengths must be positive, got {fx} and {fy}")
    v, u = torch.meshgrid(
        torch.arange(height, dtype=c2w.dtype, device=c2w.device) + 0.5,
        torch.arange(width, dtype=c2w.dtype, device=c2w.device) + 0.5,
        indexing="ij",
    )
    right, down = (u - cx) / fx, (v - cy) / fy
    if convention == "opengl":
        local = torch.stack([right, -down, -torch.ones_like(right)], -1)
    elif convention == "opencv":
        local = torch.stack([right, down, torch.ones_like(right)], -1)
    else:
        raise ValueError(f"convention must be 'opengl' or 'opencv', not {convention!r}")
    rays_d = local @ c2w[:3, :3].T  # (H, W, 3): rotated by the pose
    return c2w[:3, 3].expand_as(rays_d), rays_d


@dataclass(frozen=True)
class NDC:
    """Normalised device coordinates: what lies before a camera at the origin that looks along -z, from its near plane
    to infinity, mapped to a box.

    A world point (x, y, z), OpenGL axes, z <= -near, goes to ``(-x_scale x / z, -y_scale y / z, 1 + 2 near / z)``: the
    sides of the camera's image to -1 and 1, its near plane to z' = -1, infinity to z' = 1. Straight lines stay
    straight. The constants belong to a scene, not to one of its cameras: training, evaluation, paths and export share
    one object.

    Source: appendix C of NeRF (Mildenhall et al., ECCV 2020); 4K-NeRF takes its near plane at 1.

    Example:
        >>> ndc = NDC.of_camera(fx=50.0, fy=50.0, width=100, height=50)
        >>> ndc.points(torch.tensor([[0.0, 0.0, -1.0], [2.0, -1.0, -2.0]]))
        tensor([[ 0.,  0., -1.],
                [ 1., -1.,  0.]])
    """

    x_scale: float
    """2 fx / width."""
    y_scale: float
    """2 fy / height."""
    near: float = 1.0
    """Distance of the near plane, in world units."""

    def __post_init__(self):
        if not (self.x_scale > 0 and self.y_scale > 0 and self.near > 0):
            raise ValueError(f"scales and near must be positive, got {self.x_scale}, {self.y_scale} and {self.near}")

    @classmethod
    def of_camera(cls, fx: float, fy: float, width: int, height: int, near: float = 1.0) -> NDC:
        """Of a camera with these focal lengths and this image size in pixels; a principal point elsewhere than in the
        centre makes no difference.
        """
        return cls(2 * fx / width, 2 * fy / height, near)

    def rays(self, rays_o: Tensor, rays_d: Tensor) -> tuple[Tensor, Tensor]:
        """Rays in these coordinates: they start on the near plane, and parameters 0 to 1 reach to infinity.

        Viewing directions for a colour network are those *before* this.

        Args:
            rays_o, rays_d: (..., 3) origins and directions of any length in the world, which point towards -z.

        Returns:
            ``rays_o`` and ``rays_d`` (..., 3); directions are not normalised.
        """
        start = rays_o + (-(self.near + rays_o[..., 2:]) / rays_d[..., 2:]) * rays_d
        x, y, z = start.unbind(-1)
        dx, dy, dz = rays_d.unbind(-1)
        origins = torch.stack([-self.x_scale * x / z, -self.y_scale * y / z, 1 + 2 * self.near / z], -1)
        directions = torch.stack(
            [-self.x_scale * (dx / dz - x / z), -self.y_scale * (dy / dz - y / z), -2 * self.near / z], -1
        )
        return origins, directions

    def points(self, world: Tensor) -> Tensor:
        """World points (..., 3) before the near plane in these coordinates."""
        x, y, z = world.unbind(-1)
        return torch.stack([-self.x_scale * x / z, -self.y_scale * y / z, 1 + 2 * self.near / z], -1)

    def world(self, points: Tensor) -> Tensor:
        """The inverse of :meth:`points`; z' = 1, which is infinity, gives infinite numbers."""
        x, y, z = points.unbind(-1)
        depth = 2 * self.near / (z - 1)
        return torch.stack([-x * depth / self.x_scale, -y * depth / self.y_scale, depth], -1)

    def parameter(self, rays_o: Tensor, viewdirs: Tensor, distance: Tensor) -> Tensor:
        """Parameters (N,) of rays in these coordinates at distances (N,) from their origins (N, 3) in the world, along
        directions (N, 3) of length 1; 0 for what lies before the near plane."""
        depth = -(rays_o[:, 2] + viewdirs[:, 2] * distance)
        return torch.where(depth > self.near, 1 - self.near / depth, 0)

    def box(self, rays: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """The smallest box (2, 3), in these coordinates, around all rays from the near plane to infinity.

        As the map is a projective one, the rays through the four corners of each image give the box of all its rays.

        Args:
            rays: pairs of origins and directions (..., 3) in the world, in batches of any size.

        Raises:
            ValueError: there are no rays.
        """
        ends = []
        for rays_o, rays_d in rays:
            origins, directions = (part.reshape(-1, 3) for part in self.rays(rays_o, rays_d))
            both = torch.cat([origins, origins + directions])
            ends.append(torch.stack([both.amin(0), both.amax(0)]))
        if not ends:
            raise ValueError("a box of rays needs at least one ray")
        corners = torch.stack(ends)
        return torch.stack([corners[:, 0].amin(0), corners[:, 1].amax(0)])
