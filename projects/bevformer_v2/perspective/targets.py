"""Which place of which level learns which object (FCOS, arXiv 1904.01355, with a window around centres).

Notation: M images, m objects of an image, R places of all levels and images, n of them positive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .boxes import CameraBoxes

SIZES_OF_INTEREST = ((-1.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, 512.0), (512.0, 1e8))
"""Of the longest side of a location's box that a level is responsible for, pixels."""
_FAR = 1e8


@dataclass
class CameraTargets:
    """Objects of one image.

    Attributes:
        labels: (m,) int64.
        boxes2d: (m, 4) x1, y1, x2, y2, pixels of the network's input.
        boxes3d: (m, 10) quaternion w, x, y, z, centre x, y, z and size w, l, h in the camera's frame, metres.
        attributes: (m,) int64; the number of attributes where the object has none.
        speeds: (m,) m/s, NaN where it is not known.
        intrinsics: (3, 3) of the network's input.
    """

    labels: Tensor
    boxes2d: Tensor
    boxes3d: Tensor
    attributes: Tensor
    speeds: Tensor
    intrinsics: Tensor


@dataclass
class Assignment:
    """What each place learns, in the order of :func:`~projects.bevformer_v2.perspective.head.flatten`.

    Attributes:
        labels: (R,) int64; the number of classes where there is nothing.
        positive: (n,) int64, numbers of places that learn an object. All below are of these.
        target: (n,) int64, number of the object, counted over all images.
        image: (n,) int64.
        locations: (n, 2) u, v, pixels.
        box2d: (n, 4) left, top, right, bottom, pixels.
    """

    labels: Tensor
    positive: Tensor
    target: Tensor
    image: Tensor
    locations: Tensor
    box2d: Tensor


@torch.no_grad()
def assign(
    locations: Sequence[Tensor],
    targets: Sequence[CameraTargets],
    strides: Sequence[int],
    num_classes: int,
    radius: float = 1.5,
    sizes_of_interest: Sequence[tuple[float, float]] = SIZES_OF_INTEREST,
) -> Assignment:
    """Gives each place the smallest object whose box and centre window hold it and whose size suits its level.

    Args:
        locations: (H W, 2) of each level, pixels.
        targets: M images.
        strides: of the levels.
        num_classes: K.
        radius: half side of the window around a box's centre, in strides.
        sizes_of_interest: of each level.

    Raises:
        ValueError: another number of levels than of sizes of interest.
    """
    if len(sizes_of_interest) != len(locations):
        raise ValueError(f"{len(locations)} levels need as many sizes of interest, got {len(sizes_of_interest)}")
    firsts = [0]
    for target in targets:
        firsts.append(firsts[-1] + len(target.labels))
    labels, chosen, images, places, boxes = [], [], [], [], []
    for where, stride, interest in zip(locations, strides, sizes_of_interest, strict=True):
        for image, target in enumerate(targets):
            found, sides = _assign_level(where, target.boxes2d, stride * radius, interest)
            positive = found >= 0
            label = torch.full_like(found, num_classes)
            label[positive] = target.labels[found[positive]]
            labels.append(label)
            chosen.append(torch.where(positive, found + firsts[image], found))
            images.append(torch.full_like(found, image))
            places.append(where)
            boxes.append(sides)
    label, index = torch.cat(labels), torch.cat(chosen)
    positive = (index >= 0).nonzero()[:, 0]
    image, place, sides = (torch.cat(parts)[positive] for parts in (images, places, boxes))
    return Assignment(label, positive, index[positive], image, place, sides)


def assigned_boxes(assignment: Assignment, targets: Sequence[CameraTargets]) -> CameraBoxes:
    """The n objects of the positive places."""
    boxes = torch.cat([target.boxes3d for target in targets])[assignment.target]
    intrinsics = torch.stack([target.intrinsics for target in targets])
    center = boxes[:, 4:7]
    projected = (intrinsics[assignment.image] * center[:, None]).sum(-1)
    inverse = torch.linalg.inv(intrinsics)[assignment.image]
    return CameraBoxes(boxes[:, :4], projected[:, :2] / projected[:, 2:], center[:, 2:], boxes[:, 7:], inverse)


def centerness(box2d: Tensor) -> Tensor:
    """How central locations (n,) are in boxes (n, 4) given as left, top, right, bottom: 1 at the centre."""
    horizontal, vertical = box2d[:, 0::2], box2d[:, 1::2]
    ratios = [pair.amin(1) / pair.amax(1) for pair in (horizontal, vertical)]
    return (ratios[0] * ratios[1]).sqrt()


def _assign_level(where: Tensor, boxes: Tensor, half: float, interest: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Number of the box of each of P places, -1 for none, and left, top, right, bottom (P, 4) in it."""
    if not len(boxes):
        return where.new_full((len(where),), -1, dtype=torch.int64), where.new_zeros(len(where), 4)
    low, high = boxes[:, :2], boxes[:, 2:]
    center = (low + high) / 2
    sides = torch.cat([where[:, None] - low, high - where[:, None]], -1)  # P, m, 4
    window_low, window_high = torch.maximum(low, center - half), torch.minimum(high, center + half)
    in_window = ((where[:, None] > window_low) & (where[:, None] < window_high)).all(-1)
    longest = sides.amax(-1)
    suits = in_window & (longest >= interest[0]) & (longest <= interest[1])
    area = (high - low).prod(-1).expand(len(where), -1).masked_fill(~suits, _FAR)
    least, found = area.min(1)
    return found.masked_fill(least >= _FAR, -1), sides[torch.arange(len(where), device=where.device), found]
