"""Overlap of axis-aligned boxes."""

import torch
from torch import Tensor

from perception.ops._dtype import as_float

__all__ = ["bbox_overlaps"]


def bbox_overlaps(boxes1: Tensor, boxes2: Tensor, mode: str = "iou", aligned: bool = False, offset: int = 0) -> Tensor:
    r"""Intersection over union, or over the first box, of two sets of boxes.

    A pair whose denominator is zero (boxes without area) gives NaN, as the definition does. The denominator of boxes
    whose corners are in the wrong order is at least ``offset``, as in mmcv.

    Args:
        boxes1: xyxy boxes in pixels, of shape :math:`(N, 4)`.
        boxes2: of shape :math:`(M, 4)`, with M = N if ``aligned``.
        mode: "iou", or "iof" to divide by the area of the box of ``boxes1`` (the foreground).
        aligned: whether to compare boxes of equal index instead of all pairs.
        offset: 1 for the convention in which a box from x1 to x2 is x2 - x1 + 1 pixels wide, else 0.

    Returns:
        Tensor of shape :math:`(N,)` if ``aligned``, else :math:`(N, M)`.

    Raises:
        ValueError: if ``mode`` is unknown.
    """
    if mode not in ("iou", "iof"):
        raise ValueError(f"mode must be 'iou' or 'iof', got {mode!r}")
    dtype = boxes1.dtype
    boxes1, boxes2 = as_float(boxes1), as_float(boxes2)
    if not aligned:
        boxes1 = boxes1[:, None]
    size = (torch.minimum(boxes1[..., 2:], boxes2[..., 2:]) - torch.maximum(boxes1[..., :2], boxes2[..., :2])) + offset
    overlap = size.clamp(min=0).prod(-1)
    base = _area(boxes1, offset)
    if mode == "iou":
        base = base + _area(boxes2, offset) - overlap
    return (overlap / base.clamp(min=offset)).to(dtype)


def _area(boxes: Tensor, offset: int) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0] + offset) * (boxes[..., 3] - boxes[..., 1] + offset)
