"""Boxes as the network writes them.

A box of this system is (x, y, z, w, l, h, yaw', vx, vy): z of the whole box's centre, width before length, and
yaw' = -yaw - pi/2 in the LiDAR's axes (``perception.geometry.boxes3d.legacy_sizes_and_yaw`` goes to the suite's own
convention and back). Its code is (x, y, log w, log l, z, log h, sin yaw', cos yaw', vx, vy), in metres and m/s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Detections:
    """Boxes of one sample, best first.

    Attributes:
        boxes: (n, 9), see the module.
        scores: (n,) in [0, 1].
        labels: (n,) int64.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def encode(boxes: Tensor) -> Tensor:
    """Codes (..., 10) of boxes (..., 9). A box without size has an infinite code."""
    x, y, z, w, l, h, yaw, *velocity = boxes.unbind(-1)  # noqa: E741 (length)
    return torch.stack([x, y, w.log(), l.log(), z, h.log(), yaw.sin(), yaw.cos(), *velocity], -1)


def decode(codes: Tensor) -> Tensor:
    """Boxes (..., 9) of codes (..., 10); yaw' in [-pi, pi].

    Example:
        >>> box = torch.tensor([3.0, 9.0, -1.0, 2.0, 4.5, 1.5, -2.0, 0.5, 8.0])
        >>> torch.allclose(decode(encode(box)), box)
        True
    """
    x, y, w, l, z, h, sin, cos, *velocity = codes.unbind(-1)  # noqa: E741 (length)
    return torch.stack([x, y, z, w.exp(), l.exp(), h.exp(), torch.atan2(sin, cos), *velocity], -1)


def best_boxes(logits: Tensor, codes: Tensor, center_range: Sequence[float], max_boxes: int = 300) -> Detections:
    """The best pairs of query and class of one sample; neither a threshold nor suppression of neighbours.

    Args:
        logits: (Q, K).
        codes: (Q, 10).
        center_range: lowest and highest x, y, z of centres that are kept, metres.
        max_boxes: number of pairs, before those beyond the range go.
    """
    num_classes = logits.shape[-1]
    scores, index = logits.float().sigmoid().flatten().topk(min(max_boxes, logits.numel()))
    boxes = decode(codes.float()[index // num_classes])
    low, high = boxes.new_tensor(center_range).view(2, 3)
    kept = ((boxes[:, :3] >= low) & (boxes[:, :3] <= high)).all(-1)
    return Detections(boxes[kept], scores[kept], (index % num_classes)[kept])
