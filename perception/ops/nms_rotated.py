"""Non-maximum suppression of rotated boxes."""

import torch
from torch import Tensor

from perception.ops._dtype import round_to_dtype
from perception.ops.backend import native
from perception.ops.box_iou_rotated import paired_iou_rotated
from perception.ops.box_pairs import extents, greedy_nms
from perception.ops.polygons import rotated_box_corners
from perception.ops.registration import FULL, native_kernel

__all__ = ["nms_rotated"]

# For more the native kernel would need too much memory on the chip.
_MOST_BOXES = 393_216


def nms_rotated(
    boxes: Tensor, scores: Tensor, iou_threshold: float, labels: Tensor | None = None, clockwise: bool = True
) -> Tensor:
    r"""Greedy non-maximum suppression of rotated boxes.

    Boxes are visited by falling score (equal scores: in their given order). A box is dropped when its IoU with a kept
    box, of the same label if labels are given, is strictly greater than the threshold. (mmcv's CUDA kernel has this
    threshold rule; its CPU one drops at equality too.)

    Args:
        boxes: (cx, cy, w, h, angle) in pixels and radians, of shape :math:`(N, 5)`.
        scores: of shape :math:`(N,)`.
        iou_threshold: in [0, 1].
        labels: classes that do not suppress one another, of shape :math:`(N,)`.
        clockwise: whether a positive angle turns clockwise as seen in the image (y axis down).

    Returns:
        Indices of the kept boxes by falling score, int64 of shape :math:`(K,)`.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 4.0, 2.0, 0.0], [0.1, 0.0, 4.0, 2.0, 0.1], [9.0, 9.0, 4.0, 2.0, 0.0]])
        >>> nms_rotated(boxes, torch.tensor([0.8, 0.9, 0.7]), iou_threshold=0.5)
        tensor([1, 2])
    """
    order = torch.sort(scores.detach(), descending=True, stable=True)[1]
    threshold = round_to_dtype(iou_threshold, boxes.dtype)
    if len(boxes) <= _MOST_BOXES and native("nms_rotated", boxes):
        return torch.ops.perception.nms_rotated(boxes.detach(), order, labels, threshold, clockwise)
    ranked = boxes.detach()[order].double()
    if not clockwise:
        ranked = ranked * ranked.new_tensor([1, 1, 1, 1, -1])

    def exceeds(first: Tensor, second: Tensor) -> Tensor:
        return paired_iou_rotated(ranked[first], ranked[second]).to(boxes.dtype) > threshold

    classes = None if labels is None else labels[order]
    return order[greedy_nms(extents(rotated_box_corners(ranked)), classes, exceeds)]


@native_kernel(
    "nms_rotated(Tensor boxes, Tensor order, Tensor? labels, float iou_threshold, bool clockwise) -> Tensor", types=FULL
)
def _fake(boxes, order, labels, iou_threshold, clockwise):
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.long)
