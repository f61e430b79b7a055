"""Upright boxes in space.

A box is (x, y, z, l, w, h, yaw) in metres and radians: the centre of the whole box; length along the heading, width
across, height along z, which points up; yaw from +x to +y, 0 where the heading is +x. More columns may follow: the
first two of them are the velocity (vx, vy) in m/s along the frame's axes, and what comes after is carried along.
The frame is the caller's: nuScenes' LiDAR (x right, y forward), a vehicle (x forward, y left), KITTI's Velodyne
(x forward, y left) or the world.

Two other conventions are converted here and used nowhere else:

- *legacy*, of mmdet3d before 1.0: (x, y, z of the bottom, w, l, h, yaw'), yaw' = -yaw - pi/2 (it turns clockwise from
  -y), as in BEVFormer's info files and weights;
- KITTI's labels: (h, w, l, x, y, z, rotation_y) in the rectified camera's frame, y down at the bottom's centre.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from perception.ops.box_iou_rotated import box_iou_rotated, paired_iou_rotated

from . import se3

EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))
"""Pairs of numbers of :func:`corners`; the first four go round the front, along the heading."""

_SIGNS = ((1, 1, 1), (1, -1, 1), (1, -1, -1), (1, 1, -1), (-1, 1, 1), (-1, -1, 1), (-1, -1, -1), (-1, 1, -1))


def corners(boxes: Tensor) -> Tensor:
    """Corners (..., 8, 3) of boxes (..., 7+), in the order of nuScenes' devkit.

    In the box's frame (x along the length, y to the left): x is + + + + - - - -, y + - - + + - - +, z + + - - + + - -.

    Example:
        >>> corners(torch.tensor([10.0, 0, 1, 4, 2, 1.5, 0]))[0]  # front, left, top
        tensor([12.0000,  1.0000,  1.7500])
    """
    return from_box_frame(boxes.new_tensor(_SIGNS) / 2 * boxes[..., None, 3:6], boxes)


def ground_polygons(boxes: Tensor) -> Tensor:
    """Outlines (..., 4, 2) seen from above of boxes (..., 7+): front left, front right, rear right, rear left."""
    return corners(boxes)[..., [0, 1, 5, 4], :2]


def to_box_frame(points: Tensor, boxes: Tensor) -> Tensor:
    """Points (..., N, 3) in the frames of boxes (..., 7+): origin at the centre, x along the length, y to the left."""
    return (points - boxes[..., None, :3]) @ se3.rotation_about_z(boxes[..., 6])


def from_box_frame(points: Tensor, boxes: Tensor) -> Tensor:
    """The opposite of :func:`to_box_frame`."""
    return points @ se3.rotation_about_z(boxes[..., 6]).mT + boxes[..., None, :3]


def points_inside(points: Tensor, boxes: Tensor, scale: float = 1.0) -> Tensor:
    """Which points lie in which boxes, their faces included.

    Args:
        points: (..., N, 3).
        boxes: (..., B, 7+) in the points' frame.
        scale: of the boxes' sizes, about their centres.

    Returns:
        bool (..., B, N).
    """
    local = to_box_frame(points[..., None, :, :], boxes)  # (..., B, N, 3)
    return (local.abs() <= boxes[..., None, 3:6] * (scale / 2)).all(-1)


def iou_from_above(first: Tensor, second: Tensor) -> Tensor:
    """Overlap (N, M) of the outlines of boxes (N, 7+) and (M, 7+) seen from above; differentiable."""
    return box_iou_rotated(_outlines(first), _outlines(second))


def paired_iou_from_above(first: Tensor, second: Tensor) -> Tensor:
    """The same (N,) for boxes (N, 7+) of equal number."""
    return paired_iou_rotated(_outlines(first).double(), _outlines(second).double()).to(first.dtype)


def iou_3d(first: Tensor, second: Tensor) -> Tensor:
    """Overlap (N, M) by volume of boxes (N, 7+) and (M, 7+); differentiable.

    Example:
        >>> box = torch.tensor([[0.0, 0, 0, 4, 2, 2, 0.3]])
        >>> iou_3d(box, box + torch.tensor([0, 0, 1, 0, 0, 0, 0]))
        tensor([[0.3333]])
    """
    return _by_volume(iou_from_above(first, second), first[:, None], second[None])


def paired_iou_3d(first: Tensor, second: Tensor) -> Tensor:
    """The same (N,) for boxes (N, 7+) of equal number."""
    return _by_volume(paired_iou_from_above(first, second), first, second)


def centres_in_range(boxes: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Boxes (..., 7+) whose centres lie strictly between two corners seen from above, of which x and y count."""
    return ((boxes[..., :2] > low[:2]) & (boxes[..., :2] < high[:2])).all(-1)


def wrap_angle(angle: Tensor) -> Tensor:
    """The same angles in [-pi, pi)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


# Motions. Velocities move with the boxes.


def transform(boxes: Tensor, pose: Tensor) -> Tensor:
    """Boxes (..., N, 7+) in the frame that a pose (..., 4, 4) leads to; tilt is dropped, boxes stay upright.

    The new yaw is the direction in which the box's front points as seen from above in the new frame.
    """
    rotation = pose[..., :3, :3]
    cos, sin = boxes[..., 6].cos(), boxes[..., 6].sin()
    front = torch.stack([cos, sin, torch.zeros_like(cos)], -1) @ rotation.mT
    yaw = torch.atan2(front[..., 1], front[..., 0])
    parts = [se3.transform_points(pose, boxes[..., :3]), boxes[..., 3:6], yaw[..., None]]
    if boxes.shape[-1] > 7:
        flat = torch.nn.functional.pad(boxes[..., 7:9], (0, 1))
        parts += [(flat @ rotation.mT)[..., :2], boxes[..., 9:]]
    return torch.cat(parts, -1)


def rotate(boxes: Tensor, angle: Tensor | float) -> Tensor:
    """Boxes (..., 7+) turned about the frame's z axis by an angle from +x to +y."""
    angle = torch.as_tensor(angle, dtype=boxes.dtype, device=boxes.device)
    turn = se3.rotation_about_z(angle)
    parts = [boxes[..., :3] @ turn.mT, boxes[..., 3:6], boxes[..., 6:7] + angle]
    if boxes.shape[-1] > 7:
        parts += [boxes[..., 7:9] @ turn[:2, :2].mT, boxes[..., 9:]]
    return torch.cat(parts, -1)


def scale(boxes: Tensor, factor: float) -> Tensor:
    """Boxes (..., 7+) in a frame stretched by a factor: places, sizes and velocities."""
    return torch.cat([boxes[..., :6] * factor, boxes[..., 6:7], boxes[..., 7:9] * factor, boxes[..., 9:]], -1)


def flip_x(boxes: Tensor) -> Tensor:
    """Boxes (..., 7+) mirrored so that x changes its sign."""
    return _mirrored(boxes, 0, math.pi - boxes[..., 6])


def flip_y(boxes: Tensor) -> Tensor:
    """Boxes (..., 7+) mirrored so that y changes its sign."""
    return _mirrored(boxes, 1, -boxes[..., 6])


def relative_to(boxes: Tensor, reference: Tensor) -> Tensor:
    """Boxes (..., 7+) in the frames of reference boxes (..., 7+) of the same shape; velocities are not changed."""
    centre = to_box_frame(boxes[..., None, :3], reference)[..., 0, :]
    return torch.cat([centre, boxes[..., 3:6], boxes[..., 6:7] - reference[..., 6:7], boxes[..., 7:]], -1)


def moved_by(boxes: Tensor, offset: Tensor) -> Tensor:
    """Boxes (..., 7+) moved by (dx, dy, dz, dyaw) (..., 4), given in their own frames: what trackers predict."""
    centre = from_box_frame(offset[..., None, :3], boxes)[..., 0, :]
    return torch.cat([centre, boxes[..., 3:6], boxes[..., 6:7] + offset[..., 3:4], boxes[..., 7:]], -1)


# Other conventions.


def to_legacy(boxes: Tensor) -> Tensor:
    """Boxes (..., 7+) in the convention of mmdet3d before 1.0: (x, y, z of the bottom, w, l, h, yaw').

    Example:
        >>> to_legacy(torch.tensor([0.0, 0, 2, 4.5, 1.9, 4, torch.pi / 2]))  # heading along nuScenes' LiDAR y axis
        tensor([ 0.0000,  0.0000,  0.0000,  1.9000,  4.5000,  4.0000, -3.1416])
    """
    return centre_to_bottom(legacy_sizes_and_yaw(boxes))


def from_legacy(boxes: Tensor) -> Tensor:
    """The opposite of :func:`to_legacy`; the yaw is right up to full turns."""
    return legacy_sizes_and_yaw(bottom_to_centre(boxes))


def legacy_sizes_and_yaw(boxes: Tensor) -> Tensor:
    """Swap length and width and exchange yaw with -yaw - pi/2: into the legacy convention and back.

    Alone it keeps the centre of the whole box, as BEVFormer's info files and its head have it.
    """
    return torch.cat([boxes[..., :3], boxes[..., [4, 3, 5]], -boxes[..., 6:7] - math.pi / 2, boxes[..., 7:]], -1)


def centre_to_bottom(boxes: Tensor) -> Tensor:
    """Boxes (..., 6+) whose z is that of the bottom, where it was the whole box's centre."""
    return torch.cat([boxes[..., :2], boxes[..., 2:3] - boxes[..., 5:6] / 2, boxes[..., 3:]], -1)


def bottom_to_centre(boxes: Tensor) -> Tensor:
    """Boxes (..., 6+) whose z is that of the whole box's centre, where it was the bottom."""
    return torch.cat([boxes[..., :2], boxes[..., 2:3] + boxes[..., 5:6] / 2, boxes[..., 3:]], -1)


def from_kitti(labels: Tensor, velodyne_from_rect: Tensor) -> Tensor:
    """Boxes (..., N, 7) in the Velodyne's frame from KITTI's labels.

    Yaw is -rotation_y - pi/2, as everywhere in the field: the small turn between the axes of the two sensors (0.4
    degrees in KITTI) is left out of it.

    Args:
        labels: (..., N, 7) as h, w, l, x, y, z, rotation_y, in the order of label files.
        velodyne_from_rect: pose (..., 4, 4): inverse of R_rect times Tr_velo_cam.
    """
    h, w, l, x, y, z, rotation_y = labels.unbind(-1)  # noqa: E741 (KITTI's letters)
    centres = se3.transform_points(velodyne_from_rect, torch.stack([x, y - h / 2, z], -1))
    return torch.cat([centres, torch.stack([l, w, h, -rotation_y - math.pi / 2], -1)], -1)


def to_kitti(boxes: Tensor, rect_from_velodyne: Tensor) -> Tensor:
    """KITTI's labels (..., N, 7) as h, w, l, x, y, z, rotation_y from boxes (..., N, 7+) in the Velodyne's frame."""
    x, y, z = se3.transform_points(rect_from_velodyne, boxes[..., :3]).unbind(-1)
    l, w, h, yaw = boxes[..., 3:7].unbind(-1)  # noqa: E741 (KITTI's letters)
    return torch.stack([h, w, l, x, y + h / 2, z, wrap_angle(-yaw - math.pi / 2)], -1)


def _outlines(boxes: Tensor) -> Tensor:
    return boxes[..., [0, 1, 3, 4, 6]]


def _by_volume(iou: Tensor, first: Tensor, second: Tensor) -> Tensor:
    area1, area2 = (boxes[..., 3] * boxes[..., 4] for boxes in (first, second))
    shared_area = iou * (area1 + area2) / (1 + iou)
    top = torch.minimum(first[..., 2] + first[..., 5] / 2, second[..., 2] + second[..., 5] / 2)
    bottom = torch.maximum(first[..., 2] - first[..., 5] / 2, second[..., 2] - second[..., 5] / 2)
    shared = shared_area * (top - bottom).clamp(min=0)
    union = area1 * first[..., 5] + area2 * second[..., 5] - shared
    return torch.where(union > 0, shared / torch.where(union > 0, union, torch.ones_like(union)), 0)


def _mirrored(boxes: Tensor, axis: int, yaw: Tensor) -> Tensor:
    signs = boxes.new_ones(boxes.shape[-1])
    signs[axis] = -1
    if boxes.shape[-1] > 7:
        signs[7 + axis] = -1
    mirrored = boxes * signs
    return torch.cat([mirrored[..., :6], yaw[..., None], mirrored[..., 7:]], -1)
