"""Poses of several cameras taken together: their average, the frame in which it is the identity, paths around it.

Poses are camera-to-world (N, 4, 4) with OpenGL axes: the columns are right, up, back, and the camera's place.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from perception.geometry.se3 import compose

CANCELLED = 1e-2  # length of a mean direction below which directions cancel


def look_pose(back: Tensor, up: Tensor, centre: Tensor) -> Tensor:
    """The pose (4, 4) of an upright camera.

    Args:
        back: (3,) against the viewing direction, of any length.
        up: (3,) what shall be above in the image, not parallel to ``back``.
        centre: (3,) the camera's place.
    """
    z = normalize(back, dim=-1)
    x = normalize(torch.linalg.cross(up, z), dim=-1)
    return compose(torch.stack([x, torch.linalg.cross(z, x), z], -1), centre)


def average_pose(poses: Tensor) -> Tensor:
    """The pose (4, 4) in the middle of several: mean place, mean viewing direction, mean up made perpendicular to it.

    The rule of the LLFF loader of NeRF. Where the viewing directions cancel, as on a ring around an object, or are
    parallel to the mean up, the first camera's take their place.

    Args:
        poses: (N, 4, 4).
    """
    back, up = poses[:, :3, 2].mean(0), poses[:, :3, 1].mean(0)
    if float(back.norm()) < CANCELLED:
        back = poses[0, :3, 2]
    if float(torch.linalg.cross(up, normalize(back, dim=-1)).norm()) < CANCELLED:
        up = poses[0, :3, 1]
    return look_pose(back, up, poses[:, :3, 3].mean(0))


def spiral_poses(
    poses: Tensor,
    near: float,
    far: float,
    *,
    views: int = 120,
    turns: int = 1,
    z_share: float = 0.5,
    z_rate: float = 1.0,
) -> Tensor:
    """A path (views, 4, 4) around the middle of forward-facing cameras, which all look at one point.

    The radii are the 90th percentiles of the cameras' distances from the origin, axis by axis; the point lies on the
    average camera's axis at 1 / (0.25 / (0.9 near) + 0.75 / (5 far)). This is the path of NeRF's LLFF loader with
    DirectVoxGO's settings, as 4K-NeRF uses it; with a whole ``z_rate`` it ends where it begins.

    Args:
        poses: (N, 4, 4), recentred: their average is the identity.
        near, far: smallest and largest depth of the scene, in units of the poses.
        views: number of cameras on the path.
        turns: rounds around the axis.
        z_share: how far it goes back and forth, as a share of the radius along the axis.
        z_rate: back and forth movements in each turn.

    Raises:
        ValueError: near and far are not positive and in this order.
    """
    if not 0 < near < far:
        raise ValueError(f"near ({near:g}) must be positive and below far ({far:g})")
    middle = average_pose(poses)
    up = poses[:, :3, 1].mean(0)
    radii = torch.quantile(poses[:, :3, 3].abs(), 0.9, dim=0)
    focus = 1 / (0.25 / (0.9 * near) + 0.75 / (5 * far))
    target = middle[:3, 3] - focus * middle[:3, 2]
    angles = torch.arange(views, dtype=poses.dtype, device=poses.device) * (2 * math.pi * turns / views)
    offsets = torch.stack([angles.cos(), -angles.sin(), -(angles * z_rate).sin() * z_share], -1) * radii  # (views, 3)
    centres = middle[:3, 3] + offsets @ middle[:3, :3].T
    return torch.stack([look_pose(centre - target, up, centre) for centre in centres])
