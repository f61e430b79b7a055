"""Which points lie in which 3D boxes."""

import torch
from torch import Tensor

__all__ = ["first_box_of_points", "points_in_boxes"]


def points_in_boxes(points: Tensor, boxes: Tensor) -> Tensor:
    r"""Membership of points in upright boxes.

    The bottom and top faces belong to the box, the sides do not.

    Args:
        points: (x, y, z) in metres, of shape :math:`(..., N, 3)`.
        boxes: (x, y, z, size along x, y, z, yaw) with (x, y, z) the centre of the *bottom* face and yaw
            counter-clockwise from +x in radians, of shape :math:`(..., M, 7)`.

    Returns:
        Boolean tensor of shape :math:`(..., N, M)`.

    Example:
        >>> box = torch.tensor([[0.0, 0.0, 0.0, 4.0, 2.0, 1.5, torch.pi / 2]])  # its length lies along y
        >>> points_in_boxes(torch.tensor([[0.0, 1.5, 0.5], [1.5, 0.0, 0.5], [0.0, 0.0, -0.1]]), box)[:, 0]
        tensor([ True, False, False])
    """
    points, boxes = points[..., :, None, :], boxes[..., None, :, :]
    shift = points - boxes[..., :3]
    half = boxes[..., 3:6] / 2
    cos, sin = boxes[..., 6].cos(), boxes[..., 6].sin()
    local_x = shift[..., 0] * cos + shift[..., 1] * sin
    local_y = shift[..., 1] * cos - shift[..., 0] * sin
    level = points[..., 2] - (boxes[..., 2] + half[..., 2])
    return (local_x.abs() < half[..., 0]) & (local_y.abs() < half[..., 1]) & (level.abs() <= half[..., 2])


def first_box_of_points(points: Tensor, boxes: Tensor) -> Tensor:
    """Index (..., N) of the first box that holds each point, -1 where none does; arguments as in `points_in_boxes`."""
    inside = points_in_boxes(points, boxes)
    if inside.shape[-1] == 0:
        return torch.full(inside.shape[:-1], -1, device=inside.device)
    return torch.where(inside.any(-1), inside.int().argmax(-1), -1)
