"""Rays through the pixels of a pinhole camera."""

from __future__ import annotations

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
