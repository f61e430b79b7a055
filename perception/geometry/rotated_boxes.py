"""Rotated boxes (cx, cy, w, h, angle) in pixels and radians; a positive angle turns clockwise as seen in the image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from perception.ops.polygons import rotate


def box_corners(boxes: Tensor) -> Tensor:
    """Corners (..., 4, 2) of boxes (..., 5), clockwise as seen in the image; of an upright box from its top left.

    Example:
        >>> box_corners(torch.tensor([10.0, 10.0, 4.0, 2.0, torch.pi / 2]))  # its top left is now top right
        tensor([[11.,  8.],
                [11., 12.],
                [ 9., 12.],
                [ 9.,  8.]])
    """
    signs = boxes.new_tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    return boxes[..., None, :2] + rotate(signs * boxes[..., None, 2:4] / 2, boxes[..., None, 4])


def as_le90(boxes: Tensor) -> Tensor:
    """The same boxes (..., 5) with w >= h and the angle in [-pi/2, pi/2).

    Example:
        >>> as_le90(torch.tensor([0.0, 0.0, 2.0, 6.0, 0.5]))  # higher than wide
        tensor([ 0.0000,  0.0000,  6.0000,  2.0000, -1.0708])
    """
    centre, width, height, angle = boxes[..., :2], boxes[..., 2], boxes[..., 3], boxes[..., 4]
    swap = width < height
    angle = torch.where(swap, angle + math.pi / 2, angle)
    angle = torch.remainder(angle + math.pi / 2, math.pi) - math.pi / 2
    sizes = torch.stack([torch.where(swap, height, width), torch.where(swap, width, height), angle], -1)
    return torch.cat([centre, sizes], -1)


def as_oc(boxes: Tensor) -> Tensor:
    """The same boxes (..., 5) with the angle in (0, pi/2]: OpenCV's frame, mmrotate's "oc" before version 1.

    The width is the side at that angle to the x axis, be it the longer or the shorter one.

    Example:
        >>> as_oc(torch.tensor([0.0, 0.0, 6.0, 2.0, 0.0]))
        tensor([0.0000, 0.0000, 2.0000, 6.0000, 1.5708])
    """
    centre, width, height = boxes[..., :2], boxes[..., 2], boxes[..., 3]
    angle = torch.remainder(boxes[..., 4], math.pi)
    over, zero = angle > math.pi / 2, angle == 0
    swap = over | zero
    angle = torch.where(over, angle - math.pi / 2, torch.where(zero, angle + math.pi / 2, angle))
    sizes = torch.stack([torch.where(swap, height, width), torch.where(swap, width, height), angle], -1)
    return torch.cat([centre, sizes], -1)


def upright_bounds(boxes: Tensor) -> Tensor:
    """The smallest upright boxes (..., 4) as xyxy around boxes (..., 5)."""
    cos, sin = boxes[..., 4].cos().abs(), boxes[..., 4].sin().abs()
    width, height = boxes[..., 2], boxes[..., 3]
    reach = torch.stack([width * cos + height * sin, width * sin + height * cos], -1) / 2
    return torch.cat([boxes[..., :2] - reach, boxes[..., :2] + reach], -1)
