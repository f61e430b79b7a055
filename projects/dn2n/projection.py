"""Points seen by source cameras: where they appear, and what the images and features hold there.

A *camera vector* has 34 numbers: height, width, the 4 x 4 intrinsic matrix and the 4 x 4 camera-to-world pose, row by
row. Axes are OpenCV's (x right, y down, z forward), and pixel centres lie at whole numbers, both as in IBRNet: the
upper left pixel is (0, 0), the last one (w - 1, h - 1).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_DEPTH = 1e-8
MAX_PIXEL = 1e6
TINY = 1e-6


def camera_vector(height: int, width: int, intrinsics: Tensor, c2w: Tensor) -> Tensor:
    """Camera vectors (..., 34).

    Args:
        height, width: of the image, in pixels.
        intrinsics: (..., 3, 3) or (..., 4, 4), with the principal point counted from the centre of the first pixel.
        c2w: (..., 4, 4), OpenCV axes.
    """
    full = torch.eye(4, dtype=c2w.dtype, device=c2w.device).repeat(*c2w.shape[:-2], 1, 1)
    full[..., :3, :3] = intrinsics[..., :3, :3]
    size = c2w.new_tensor([height, width]).expand(*c2w.shape[:-2], 2)
    return torch.cat([size, full.flatten(-2), c2w.flatten(-2)], -1)


def split_camera(cameras: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Heights and widths (..., 2), intrinsics (..., 4, 4) and poses (..., 4, 4) of camera vectors (..., 34)."""
    return cameras[..., :2], cameras[..., 2:18].unflatten(-1, (4, 4)), cameras[..., 18:34].unflatten(-1, (4, 4))


def camera_rays(camera: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Origins and directions (N, 3) of rays through pixels (N, 2), (u, v), of one camera (34,).

    Directions have length 1 along the viewing axis, so that a ray's parameter is a depth.
    """
    _, intrinsics, pose = split_camera(camera)
    homogeneous = torch.cat([pixels, torch.ones_like(pixels[:, :1])], -1)
    to_world = pose[:3, :3] @ torch.linalg.inv(intrinsics[:3, :3])  # products in IBRNet's order, to the last bit
    directions = (to_world @ homogeneous.T).T
    return pose[:3, 3].expand_as(directions), directions


class Seen(NamedTuple):
    """Where points (P) appear to cameras (V)."""

    pixels: Tensor  # (V, P, 2) u and v
    depth: Tensor  # (V, P) along the viewing axis
    mask: Tensor  # (V, P) bool: in front of the camera and within its image


def project(points: Tensor, cameras: Tensor) -> Seen:
    """Project points (P, 3) to cameras (V, 34), as IBRNet's projector does.

    A point behind a camera is masked, whatever it divides to.
    """
    size, intrinsics, pose = split_camera(cameras)
    to_image = intrinsics.bmm(torch.linalg.inv(pose))
    homogeneous = torch.cat([points, torch.ones_like(points[:, :1])], -1)
    # One product of 4 x 4 matrices for each camera, as IBRNet has it: its rounding decides who sees a point on an edge.
    scaled = to_image.bmm(homogeneous.T.expand(len(cameras), -1, -1)).mT  # (V, P, 4)
    depth = scaled[..., 2]
    pixels = (scaled[..., :2] / depth.clamp(min=MIN_DEPTH)[..., None]).clamp(-MAX_PIXEL, MAX_PIXEL)
    height, width = (side[:, None] for side in size.unbind(-1))
    u, v = pixels.unbind(-1)
    inside = (u >= 0) & (u <= width - 1) & (v >= 0) & (v <= height - 1)
    return Seen(pixels, depth, inside & (depth > 0))


def ray_differences(points: Tensor, target: Tensor, cameras: Tensor) -> Tensor:
    """How far the source views' directions differ from the target's: (V, P, 4), a unit vector and a cosine.

    Args:
        points: (P, 3).
        target: (34,), from whose centre they are rendered.
        cameras: (V, 34) of the sources.
    """
    to_target = split_camera(target)[2][:3, 3] - points  # (P, 3)
    to_source = split_camera(cameras)[2][:, None, :3, 3] - points  # (V, P, 3)
    to_target = to_target / (to_target.norm(dim=-1, keepdim=True) + TINY)
    to_source = to_source / (to_source.norm(dim=-1, keepdim=True) + TINY)
    difference = to_target - to_source
    direction = difference / difference.norm(dim=-1, keepdim=True).clamp(min=TINY)
    return torch.cat([direction, (to_target * to_source).sum(-1, keepdim=True)], -1)


class Gathered(NamedTuple):
    """What source views (V) show at the samples (S) of rays (R): the input of the aggregation network."""

    rgb_feat: Tensor  # (R, S, V, 3 + C) colour, then features
    ray_diff: Tensor  # (R, S, V, 4)
    mask: Tensor  # (R, S, V, 1) 1 where the view sees the sample, else 0


def gather(points: Tensor, target: Tensor, images: Tensor, cameras: Tensor, features: Tensor) -> Gathered:
    """Look samples up in all source views.

    Args:
        points: (R, S, 3) in the world.
        target: camera vector (34,) from which the rays come.
        images: (V, 3, H, W), of the sizes that the cameras state.
        cameras: (V, 34).
        features: (V, C, h, w), whose corners are those of the images.
    """
    rays, samples = points.shape[:2]
    flat = points.reshape(-1, 3)
    seen = project(flat, cameras)
    height, width = cameras[:, None, 0], cameras[:, None, 1]
    scale = torch.stack([width - 1, height - 1], -1)
    places = (2 * seen.pixels / scale - 1)[:, :, None]  # (V, P, 1, 2)
    found = [F.grid_sample(source, places, align_corners=True)[..., 0] for source in (images, features)]  # (V, C, P)
    shape = (rays, samples, len(cameras), -1)
    rgb_feat = torch.cat(found, 1).permute(2, 0, 1).reshape(shape)
    ray_diff = ray_differences(flat, target, cameras).transpose(0, 1).reshape(shape)
    return Gathered(rgb_feat, ray_diff, seen.mask.T.reshape(shape).to(points.dtype))
