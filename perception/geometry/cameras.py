"""Pinhole cameras without distortion.

Camera frames are OpenCV ones (x right, y down, z forward, metres) unless a name says OpenGL (x right, y up, looking
along -z). Pixels are (u, v): u to the right, v down, (0, 0) the outer corner of the upper left pixel, whose centre is
(0.5, 0.5). nuScenes and KITTI publish images without distortion, so there is none here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NEAR = 1e-5
"""Depth in metres at and below which a point counts as behind the camera, as in BEVFormer."""


class Projection(NamedTuple):
    """Where points appear."""

    pixels: Tensor  # (..., N, 2) u and v; of no meaning where not `valid`
    depth: Tensor  # (..., N) metres along the viewing axis
    valid: Tensor  # bool (..., N): in front of the camera


def image_matrix(intrinsics: Tensor, camera_from_frame: Tensor) -> Tensor:
    """Matrices (..., 4, 4) that take homogeneous points of a frame to (u depth, v depth, depth, 1).

    What nuScenes code calls ``lidar2img`` where the frame is the LiDAR's.

    Args:
        intrinsics: (..., 3, 3), (..., 3, 4) or (..., 4, 4), in pixels.
        camera_from_frame: pose (..., 4, 4), OpenCV axes.
    """
    full = torch.zeros(*intrinsics.shape[:-2], 4, 4, dtype=intrinsics.dtype, device=intrinsics.device)
    full[..., : intrinsics.shape[-2], : intrinsics.shape[-1]] = intrinsics
    full[..., 3, 3] = 1
    return full @ camera_from_frame


def project(points: Tensor, matrix: Tensor, near: float = NEAR) -> Projection:
    """Project points by a matrix of :func:`image_matrix`.

    Points behind the camera divide to pixels that look like any others: use `valid`.

    Args:
        points: (..., N, 3) in the matrix's frame, metres.
        matrix: (..., 4, 4), or (..., 3, 4).
        near: least depth that is valid, in metres.

    Example:
        >>> matrix = image_matrix(torch.tensor([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]]), torch.eye(4))
        >>> seen = project(torch.tensor([[1.0, 0.5, 10.0], [1.0, 0.5, -10.0]]), matrix)
        >>> seen.pixels[0], seen.valid
        (tensor([60., 45.]), tensor([ True, False]))
    """
    scaled = points @ matrix[..., :3, :3].mT + matrix[..., None, :3, 3]
    depth = scaled[..., 2]
    return Projection(scaled[..., :2] / depth.clamp(min=near)[..., None], depth, depth > near)


def unproject(pixels: Tensor, depth: Tensor, intrinsics: Tensor) -> Tensor:
    """Points (..., N, 3) in the camera's frame from pixels (..., N, 2), depths (..., N) and intrinsics (..., 3, 3)."""
    homogeneous = torch.cat([pixels, torch.ones_like(pixels[..., :1])], -1)
    rays = torch.linalg.solve(intrinsics[..., :3, :3], homogeneous.mT).mT
    return rays * depth[..., None]


def inside_image(pixels: Tensor, width: Tensor | float, height: Tensor | float) -> Tensor:
    """Which pixels (..., 2) lie strictly within an image, bool (...,). Sizes are those of the image without padding."""
    u, v = pixels.unbind(-1)
    return (u > 0) & (u < width) & (v > 0) & (v < height)


def crop_and_resize(intrinsics: Tensor, offset: tuple[float, float], scale: tuple[float, float]) -> Tensor:
    """The matrix after an image was cropped and then resized: intrinsics (..., 3, 3) or (..., 4, 4), same shape.

    Args:
        intrinsics: in pixels of the image as it was.
        offset: left and top of the crop in these pixels.
        scale: new over old width, new over old height.

    Example:
        >>> crop_and_resize(torch.tensor([[1266.0, 0, 816], [0, 1266, 491], [0, 0, 1]]), (0, 260), (0.5, 0.5))
        tensor([[633.0000,   0.0000, 408.0000],
                [  0.0000, 633.0000, 115.5000],
                [  0.0000,   0.0000,   1.0000]])
    """
    change = torch.eye(intrinsics.shape[-2], dtype=intrinsics.dtype, device=intrinsics.device)
    for axis in range(2):
        change[axis, axis] = scale[axis]
        change[axis, 2] = -scale[axis] * offset[axis]
    return change @ intrinsics


def switch_axes(pose: Tensor) -> Tensor:
    """Poses (..., 4, 4) of cameras with OpenCV axes where they had OpenGL ones, or the other way round: exact.

    A pose leads from the camera's frame to another (camera-to-world), not towards it.
    """
    return pose * pose.new_tensor([1, -1, -1, 1])


def cut_at_near(segments: Tensor, near: float = 0.1) -> tuple[Tensor, Tensor]:
    """Cut lines at the near plane, for drawing what reaches behind a camera.

    Args:
        segments: (..., 2, 3) ends in the camera's frame.
        near: depth of the plane in metres.

    Returns:
        Segments (..., 2, 3) whose ends are no nearer than the plane, and which of them there are: bool (...,). The
        others lie behind it, and their ends have no meaning.
    """
    first, second = segments.unbind(-2)
    step = second[..., 2] - first[..., 2]
    share = (near - first[..., 2]) / torch.where(step == 0, torch.ones_like(step), step)
    crossing = first + share[..., None] * (second - first)
    cut = [torch.where((end[..., 2] < near)[..., None], crossing, end) for end in (first, second)]
    return torch.stack(cut, -2), (segments[..., 2] >= near).any(-1)
