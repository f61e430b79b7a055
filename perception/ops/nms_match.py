"""Suppression that remembers which box suppressed which."""

import torch
from torch import Tensor

from perception.ops._dtype import as_float, round_to_dtype
from perception.ops.backend import native
from perception.ops.registration import FULL, native_kernel

__all__ = ["nms_match"]


def nms_match(boxes: Tensor, scores: Tensor, iou_threshold: float) -> list[Tensor]:
    r"""Groups boxes by the kept box of greedy non-maximum suppression (PISA, arXiv:1904.04821).

    Args:
        boxes: xyxy boxes in pixels, of shape :math:`(N, 4)`.
        scores: of shape :math:`(N,)`.
        iou_threshold: a box joins the group of the highest remaining box when their IoU is at least this (here equality
            counts, unlike in :func:`perception.ops.nms.nms`).

    Returns:
        One int64 tensor of indices per group: the kept box first, then what it suppressed, each by falling score.
    """
    boxes = as_float(boxes.detach())
    threshold = round_to_dtype(iou_threshold, boxes.dtype)
    remaining = torch.sort(scores.detach(), descending=True, stable=True)[1]
    if native("nms_match", boxes):
        return _groups(remaining, torch.ops.perception.nms_match(boxes, remaining, threshold))
    x1, y1, x2, y2 = boxes.unbind(1)
    areas = (x2 - x1) * (y2 - y1)

    groups = []
    while len(remaining):
        best, rest = remaining[0], remaining[1:]
        width = (torch.minimum(x2[best], x2[rest]) - torch.maximum(x1[best], x1[rest])).clamp(min=0)
        height = (torch.minimum(y2[best], y2[rest]) - torch.maximum(y1[best], y1[rest])).clamp(min=0)
        overlap = width * height
        matched = overlap / (areas[best] + areas[rest] - overlap) >= threshold
        groups.append(torch.cat([best[None], rest[matched]]))
        remaining = rest[~matched]
    return groups


def _groups(order: Tensor, leader: Tensor) -> list[Tensor]:
    """Boxes by rank, one group for each that leads; ``leader`` is the rank of the one that each follows."""
    sizes = leader.bincount(minlength=len(order))
    return list(order[leader.argsort(stable=True)].split(sizes[sizes > 0].tolist()))


@native_kernel("nms_match(Tensor boxes, Tensor order, float iou_threshold) -> Tensor", types=FULL)
def _fake(boxes, order, iou_threshold):
    return torch.empty_like(order)
