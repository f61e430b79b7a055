"""Non-maximum suppression of axis-aligned boxes."""

import torch
import torchvision
from torch import Tensor

from perception.ops._dtype import as_float, round_to_dtype
from perception.ops.registration import kernels_of

__all__ = ["nms"]


@kernels_of("torchvision")
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    r"""Greedy non-maximum suppression.

    Boxes are visited by falling score (equal scores: in their given order). A box is dropped when its IoU with a
    kept box is strictly greater than the threshold, where the threshold is first rounded to the boxes' precision: an
    IoU of exactly 3/10 survives a threshold of 0.3 in float32 as well.

    Args:
        boxes: xyxy boxes in pixels, of shape :math:`(N, 4)`.
        scores: of shape :math:`(N,)`.
        iou_threshold: in [0, 1].
        offset: 1 for the convention in which a box from x1 to x2 is x2 - x1 + 1 pixels wide, else 0.

    Returns:
        Indices of the kept boxes by falling score, int64 of shape :math:`(K,)`.

    Raises:
        ValueError: if ``offset`` is neither 0 nor 1.
    """
    if offset not in (0, 1):
        raise ValueError(f"offset must be 0 or 1, got {offset}")
    if boxes.numel() == 0:
        return torch.zeros(0, dtype=torch.long, device=boxes.device)
    boxes = as_float(boxes.detach())
    if offset:
        # Widening by one pixel turns the inclusive convention into the one that torchvision computes.
        boxes = boxes + boxes.new_tensor([0, 0, 1, 1])
    scores = scores.detach().to(boxes.dtype)
    return torchvision.ops.nms(boxes, scores, round_to_dtype(iou_threshold, boxes.dtype))
