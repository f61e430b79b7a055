"""Boxes as 4-vectors (x, y, z, yaw): z up, yaw counter-clockwise in radians (M2-Track, arXiv 2203.01730)."""

from __future__ import annotations

import torch
from torch import Tensor

from perception.geometry import se3


def rotate_z(points: Tensor, yaw: Tensor) -> Tensor:
    """Points (B, N, 3) turned by yaw (B) about z."""
    return points @ se3.rotation_about_z(yaw).mT


def compose(reference: Tensor, offset: Tensor) -> Tensor:
    """The box (B, 4) at an offset (B, 4) that is given in the frame of a reference box (B, 4)."""
    centre = reference[:, :3] + rotate_z(offset[:, None, :3], reference[:, 3])[:, 0]
    return torch.cat([centre, reference[:, 3:] + offset[:, 3:]], -1)


def into_frame(points: Tensor, box: Tensor) -> Tensor:
    """Points (B, N, 3) in the frame of a box (B, 4)."""
    return rotate_z(points - box[:, None, :3], -box[:, 3])


def out_of_frame(points: Tensor, box: Tensor) -> Tensor:
    """Points (B, N, 3) of the frame of a box (B, 4), back in the frame in which the box is given."""
    return rotate_z(points, box[:, 3]) + box[:, None, :3]


def move_with(points: Tensor, box: Tensor, motion: Tensor) -> Tensor:
    """Points (B, N, 3) that move rigidly with a box (B, 4) by a motion (B, 4) in the box's frame."""
    return out_of_frame(out_of_frame(into_frame(points, box), motion), box)
