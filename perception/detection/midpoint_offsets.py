"""Midpoint offsets of oriented proposals (Oriented R-CNN, arXiv 2108.05699) in closed form, for mmrotate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from mmdet.structures.bbox import BaseBoxes, get_box_tensor
from mmrotate.models.task_modules.coders import MidpointOffsetCoder
from mmrotate.registry import TASK_UTILS
from mmrotate.structures.bbox import RotatedBoxes
from torch import Tensor


@TASK_UTILS.register_module()
class ClosedFormMidpointOffsetCoder(MidpointOffsetCoder):
    """mmrotate's coder of oriented proposals without its loop over ``cv2.minAreaRect`` when decoding.

    The corners that are decoded already form a rectangle, so its edges are its size and direction. Encoding differs for
    boxes a little off upright, whose long edges deviate by more than 0.1 px and whose short ones by less: mmrotate (and
    OBBDetection) pick a corner at the wrong end of the short edge, which decodes to a box almost without area.
    """

    def encode(self, bboxes: BaseBoxes | Tensor, gt_bboxes: RotatedBoxes) -> Tensor:
        """Offsets (N, 6) of rotated boxes (N, 5) from upright anchors (N, 4)."""
        deltas = encode_midpoints(get_box_tensor(bboxes).float(), get_box_tensor(gt_bboxes).float())
        return (deltas - deltas.new_tensor(self.means)) / deltas.new_tensor(self.stds)

    def decode(
        self,
        bboxes: BaseBoxes | Tensor,
        pred_bboxes: Tensor,
        max_shape: Sequence[int] | None = None,
        wh_ratio_clip: float = 16 / 1000,
    ) -> RotatedBoxes | Tensor:
        """Rotated boxes (N, 5) of ``angle_version`` from upright anchors (N, 4) and offsets (N, 6).

        As in mmrotate, ``max_shape`` is not used.
        """
        deltas = pred_bboxes * pred_bboxes.new_tensor(self.stds) + pred_bboxes.new_tensor(self.means)
        boxes = RotatedBoxes(decode_midpoints(get_box_tensor(bboxes), deltas, wh_ratio_clip), clone=False)
        boxes.regularize_boxes(self.angle_version)
        return boxes if self.use_box_type else boxes.tensor


def encode_midpoints(anchors: Tensor, boxes: Tensor) -> Tensor:
    """What :func:`decode_midpoints` decodes: offsets (..., 6) of rotated boxes (..., 5) from anchors (..., 4).

    A box that is upright (its corners within 0.1 px) has its upper and right corner at the end of their edges.
    """
    width, height, angle = boxes[..., 2:].unbind(-1)
    # By quarter turns into [0, pi/2).
    turns = torch.floor(angle / (math.pi / 2))
    odd = turns % 2 != 0
    width, height = torch.where(odd, height, width), torch.where(odd, width, height)
    sin, cos = (angle - turns * (math.pi / 2)).sin(), (angle - turns * (math.pi / 2)).cos()
    hull = torch.stack([width * cos + height * sin, width * sin + height * cos], -1)
    corners = torch.stack([height * sin - width * cos, width * sin - height * cos], -1) / 2
    upright = torch.maximum(width, height) * sin < 0.1
    corners = torch.where(upright[..., None], hull / 2, corners)
    size = anchors[..., 2:] - anchors[..., :2]
    shift = (boxes[..., :2] - (anchors[..., :2] + anchors[..., 2:]) / 2) / size
    return torch.cat([shift, (hull / size).log(), corners / hull], -1)


def decode_midpoints(anchors: Tensor, deltas: Tensor, wh_ratio_clip: float = 16 / 1000) -> Tensor:
    """Rectangles from upright boxes and midpoint offsets (section 3.1 of the paper).

    Args:
        anchors: (..., 4) as xyxy.
        deltas: (..., 6): shift and logarithmic scale (dx, dy, dw, dh) of the hull, then where two corners lie on its
            upper and right edge, from the middle of the edge in units of its length (clamped to half of it).
        wh_ratio_clip: bound of the scale and of its inverse.

    Returns:
        (..., 5) as (cx, cy, w, h, angle) with w >= h; positive angles turn clockwise, in [-pi, pi].
    """
    limit = abs(math.log(wh_ratio_clip))
    size = anchors[..., 2:] - anchors[..., :2]
    centre = (anchors[..., :2] + anchors[..., 2:]) / 2 + size * deltas[..., :2]
    size = size * deltas[..., 2:4].clamp(-limit, limit).exp()
    across = size * deltas[..., 4:6].clamp(-0.5, 0.5)
    # From the centre to the corner on the upper edge and to the one on the right edge: half diagonals, made equal.
    upper = torch.stack([across[..., 0], -size[..., 1] / 2], -1)
    right = torch.stack([size[..., 0] / 2, across[..., 1]], -1)
    lengths = torch.stack([upper.norm(dim=-1), right.norm(dim=-1)], -1)
    upper, right = (
        corner * (lengths.amax(-1) / length.clamp_min(torch.finfo(length.dtype).tiny))[..., None]
        for corner, length in zip((upper, right), lengths.unbind(-1))
    )
    first, second = right - upper, -(right + upper)
    width, height = first.norm(dim=-1), second.norm(dim=-1)
    # The direction of the longer edge, which is never a point.
    longer = torch.where((width >= height)[..., None], first, second)
    angle = torch.atan2(longer[..., 1], longer[..., 0])
    long_short = torch.stack([torch.maximum(width, height), torch.minimum(width, height)], -1)
    return torch.cat([centre, long_short, angle[..., None]], -1)
