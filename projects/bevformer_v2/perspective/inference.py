"""3D boxes of single images from the perspective head (DD3D, arXiv 2108.06417, section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from perception.geometry import se3

from .boxes import BoxDecoding, CameraBoxes
from .head import PerspectiveOutput, flatten, locations
from .losses import predicted_boxes


@dataclass
class CameraDetections:
    """Boxes of one image.

    Attributes:
        boxes2d: (n, 4) x1, y1, x2, y2, pixels of the network's input.
        scores: (n,) of the class and the place in the image.
        scores3d: (n,) the same times the confidence in the 3D box.
        labels: (n,) int64.
        boxes: 3D, in the camera's frame.
    """

    boxes2d: Tensor
    scores: Tensor
    scores3d: Tensor
    labels: Tensor
    boxes: CameraBoxes

    def __getitem__(self, index: Tensor) -> CameraDetections:
        """Some of them."""
        return CameraDetections(*(getattr(self, field.name)[index] for field in fields(self)))


@torch.no_grad()
def detect(
    output: PerspectiveOutput,
    strides: Sequence[int],
    intrinsics: Tensor,
    decoding: BoxDecoding,
    score_threshold: float = 0.05,
    max_per_level: int = 1000,
    iou_threshold: float = 0.6,
    max_per_image: int = 100,
) -> list[CameraDetections]:
    """Boxes of M images, the best first.

    Args:
        output: predictions.
        strides: of the levels.
        intrinsics: (M, 3, 3) of the images that the head saw.
        decoding: how predictions become boxes.
        score_threshold: of class times centerness.
        max_per_level: candidates of an image and level.
        iou_threshold: of 2D boxes of a class, above which that of the lower 3D score goes.
        max_per_image: boxes that are kept, those that rate best in the image (``scores``, as DD3D counts them); ties
            with the last of them stay too.
    """
    found = []
    levels = [
        level_candidates(output, level, strides, intrinsics, decoding, score_threshold, max_per_level)
        for level in range(len(strides))
    ]
    for of_levels in zip(*levels):
        every = _join(of_levels)
        apart = every[batched_nms(every.boxes2d, every.scores3d, every.labels, iou_threshold)]
        if len(apart.scores) > max_per_image:
            apart = apart[apart.scores >= apart.scores.topk(max_per_image).values[-1]]
        found.append(apart)
    return found


@torch.no_grad()
def level_candidates(
    output: PerspectiveOutput,
    level: int,
    strides: Sequence[int],
    intrinsics: Tensor,
    decoding: BoxDecoding,
    score_threshold: float = 0.05,
    max_per_level: int = 1000,
) -> list[CameraDetections]:
    """Boxes of M images from one level, by falling score, neighbours included; arguments as in :func:`detect`."""
    single = PerspectiveOutput(*([getattr(output, field.name)[level]] for field in fields(output)))
    where = locations(single, strides[level : level + 1])[0]
    num_images = len(single.logits[0])
    joint = flatten(single.logits).sigmoid() * flatten(single.centerness).sigmoid()
    chosen = []
    for image, scores in enumerate(joint.unflatten(0, (num_images, -1)).flatten(1)):
        best, index = scores.topk(min(max_per_level, len(scores)))
        chosen.append(index[best > score_threshold] + image * len(scores))
    index = torch.cat(chosen)
    rows, labels = index // joint.shape[1], index % joint.shape[1]
    image, place = rows // len(where), where[rows % len(where)]
    inverse = torch.linalg.inv(intrinsics.float())[image]
    scores = joint[rows, labels].sqrt()
    conf = flatten(single.conf)[rows, labels].sigmoid()
    sides = flatten(single.box2d)[rows]
    every = CameraDetections(
        torch.cat([place - sides[:, :2], place + sides[:, 2:]], 1),
        scores,
        scores * conf,
        labels,
        predicted_boxes(single, rows, labels, place, inverse, decoding),
    )
    return [every[image == number] for number in range(num_images)]


def to_lidar(boxes: CameraBoxes, lidar_from_camera: Tensor) -> Tensor:
    """Upright boxes (n, 7) x, y, z, l, w, h, yaw in the LiDAR's frame; z of the whole box's centre.

    Args:
        boxes: n.
        lidar_from_camera: pose (4, 4).
    """
    pose = lidar_from_camera.to(boxes.depth)
    centers = se3.transform_points(pose, boxes.centers())
    yaw = se3.heading(pose[:3, :3] @ se3.quaternion_to_matrix(boxes.quat))
    return torch.cat([centers, boxes.size[:, [1, 0, 2]], yaw[:, None]], 1)


def _join(parts: Sequence[CameraDetections]) -> CameraDetections:
    def every(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    boxes = CameraBoxes(*(torch.cat([getattr(p.boxes, f.name) for p in parts]) for f in fields(CameraBoxes)))
    return CameraDetections(every("boxes2d"), every("scores"), every("scores3d"), every("labels"), boxes)
