"""Non-maximum suppression of quadrilateral boxes."""

import torch
from torch import Tensor

from perception.ops._dtype import round_to_dtype
from perception.ops.box_iou_quadri import paired_iou_quadri
from perception.ops.box_pairs import extents, greedy_nms

__all__ = ["nms_quadri"]


def nms_quadri(boxes: Tensor, scores: Tensor, iou_threshold: float, labels: Tensor | None = None) -> Tensor:
    r"""Greedy non-maximum suppression of quadrilaterals; rules as in :func:`perception.ops.nms_rotated.nms_rotated`.

    Args:
        boxes: corners (x1, y1, ..., x4, y4) in order around the box, in pixels, of shape :math:`(N, 8)`.
        scores: of shape :math:`(N,)`.
        iou_threshold: in [0, 1], applied to :func:`perception.ops.box_iou_quadri.box_iou_quadri`.
        labels: classes that do not suppress one another, of shape :math:`(N,)`.

    Returns:
        Indices of the kept boxes by falling score, int64 of shape :math:`(K,)`.
    """
    order = torch.sort(scores.detach(), descending=True, stable=True)[1]
    corners = boxes.detach()[order].double().reshape(-1, 4, 2)
    threshold = round_to_dtype(iou_threshold, boxes.dtype)

    def exceeds(first: Tensor, second: Tensor) -> Tensor:
        return paired_iou_quadri(corners[first], corners[second]).to(boxes.dtype) > threshold

    classes = None if labels is None else labels[order]
    return order[greedy_nms(extents(corners), classes, exceeds)]
