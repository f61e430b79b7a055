"""Rigid motions in space.

A pose is a matrix (..., 4, 4) that acts on column vectors, named by direction: ``ego_from_camera`` takes points of the
camera's frame to the vehicle's, so that ``global_from_ego @ ego_from_camera`` is ``global_from_camera``. Quaternions
are (w, x, y, z), the order of nuScenes; scipy and ROS put w last. Lengths are metres, angles radians.
"""

from __future__ import annotations

import torch
from torch import Tensor


def compose(rotation: Tensor, translation: Tensor) -> Tensor:
    """Poses (..., 4, 4) from rotation matrices (..., 3, 3) and translations (..., 3)."""
    top = torch.cat([rotation, translation[..., None]], -1)
    bottom = torch.zeros_like(top[..., :1, :])
    bottom[..., 3] = 1
    return torch.cat([top, bottom], -2)


def from_quaternion(quaternion: Tensor, translation: Tensor) -> Tensor:
    """Poses (..., 4, 4) from quaternions (..., 4) in the order w, x, y, z and translations (..., 3)."""
    return compose(quaternion_to_matrix(quaternion), translation)


def invert(pose: Tensor) -> Tensor:
    """The opposite motion (..., 4, 4), in closed form: exact where a general inverse rounds.

    Example:
        >>> pose = from_quaternion(torch.tensor([0.6, 0.0, 0.0, 0.8]), torch.tensor([1.0, 2.0, 3.0]))
        >>> torch.allclose(invert(pose) @ pose, torch.eye(4), atol=1e-6)
        True
    """
    rotation = pose[..., :3, :3].mT
    return compose(rotation, -(rotation @ pose[..., :3, 3:])[..., 0])


def transform_points(pose: Tensor, points: Tensor) -> Tensor:
    """Points (..., N, 3) in the frame that a pose (..., 4, 4) leads to."""
    return points @ pose[..., :3, :3].mT + pose[..., None, :3, 3]


def interpolate(first: Tensor, second: Tensor, share: Tensor | float) -> Tensor:
    """The pose (..., 4, 4) at a share of the way between two: positions on a line, rotations on the shorter arc.

    Args:
        first, second: (..., 4, 4).
        share: (...,) or a number; 0 is the first pose and 1 the second, beyond which the motion goes on.
    """
    share = torch.as_tensor(share, dtype=first.dtype, device=first.device)
    one, two = (matrix_to_quaternion(pose[..., :3, :3]) for pose in (first, second))
    position = first[..., :3, 3] + share[..., None] * (second[..., :3, 3] - first[..., :3, 3])
    return from_quaternion(slerp(one, two, share), position)


def rotation_about_z(angle: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) that turn +x towards +y by angles (...,)."""
    cos, sin = angle.cos(), angle.sin()
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    rows = [torch.stack(row, -1) for row in ((cos, -sin, zero), (sin, cos, zero), (zero, zero, one))]
    return torch.stack(rows, -2)


def heading(rotation: Tensor) -> Tensor:
    """Angles (...,) from +x to +y at which rotations (..., 3, 3) or poses turn the x axis, seen from above."""
    return torch.atan2(rotation[..., 1, 0], rotation[..., 0, 0])


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of quaternions (..., 4) in the order w, x, y, z, of any length but 0.

    Example:
        >>> half = torch.tensor(torch.pi / 8)
        >>> heading(quaternion_to_matrix(torch.stack([half.cos(), 0 * half, 0 * half, half.sin()])))
        tensor(0.7854)
    """
    w, x, y, z = torch.nn.functional.normalize(quaternion, dim=-1, eps=0).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def matrix_to_quaternion(rotation: Tensor) -> Tensor:
    """Unit quaternions (..., 4) in the order w, x, y, z of rotation matrices (..., 3, 3), with w >= 0.

    Each is computed from its largest component, so that no small number is divided by.
    """
    m = rotation
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    # Row k is the quaternion times four times its k-th component: the outer product 4 q q^T.
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    rows = (
        (1 + xx + yy + zz, wx, wy, wz),
        (wx, 1 + xx - yy - zz, xy, xz),
        (wy, xy, 1 - xx + yy - zz, yz),
        (wz, xz, yz, 1 - xx - yy + zz),
    )
    outer = torch.stack([torch.stack(row, -1) for row in rows], -2)  # (..., 4, 4)
    best = torch.diagonal(outer, dim1=-2, dim2=-1).argmax(-1)
    chosen = outer.gather(-2, best[..., None, None].expand(*best.shape, 1, 4))[..., 0, :]
    unit = torch.nn.functional.normalize(chosen, dim=-1)
    return torch.where(unit[..., :1] < 0, -unit, unit)


def slerp(first: Tensor, second: Tensor, share: Tensor | float) -> Tensor:
    """Unit quaternions (..., 4) on the shorter arc between unit quaternions, in equal steps of angle.

    Args:
        first, second: (..., 4); the order of components does not matter, as long as it is the same.
        share: (...,) or a number, 0 at the first and 1 at the second.
    """
    share = torch.as_tensor(share, dtype=first.dtype, device=first.device)
    cosine = (first * second).sum(-1)
    second = torch.where(cosine[..., None] < 0, -second, second)
    # From the chord and not from the cosine, which says nothing about small angles.
    half = torch.asin(((second - first).norm(dim=-1) / 2).clamp(max=1))
    angle = 2 * half
    angle, share = torch.broadcast_tensors(angle, share)
    small = angle < 1e-7
    sine = torch.where(small, torch.ones_like(angle), angle.sin())
    one = torch.where(small, 1 - share, ((1 - share) * angle).sin() / sine)
    two = torch.where(small, share, (share * angle).sin() / sine)
    return torch.nn.functional.normalize(one[..., None] * first + two[..., None] * second, dim=-1)
