"""Overlap of rotated boxes."""

import torch
from torch import Tensor

from perception.ops.backend import native
from perception.ops.box_pairs import extents, overlapping_pairs
from perception.ops.polygons import area_within_rectangle, rotate, rotated_box_corners
from perception.ops.registration import FULL, native_kernel

__all__ = ["box_iou_rotated"]

# Boxes below this area (in square pixels) overlap nothing, as in mmcv.
_SMALLEST_AREA = 1e-14
# Pairs whose geometry is computed at once; each takes about a kilobyte.
_PAIRS_AT_ONCE = 1 << 18


def box_iou_rotated(
    boxes1: Tensor, boxes2: Tensor, mode: str = "iou", aligned: bool = False, clockwise: bool = True
) -> Tensor:
    r"""Intersection over union, or over the first box, of two sets of rotated boxes.

    The result is differentiable by both sets almost everywhere (this is the differentiable rotated IoU, too: the
    reference runs where a gradient is wanted). Boxes of no area have overlap 0.

    Args:
        boxes1: boxes (cx, cy, w, h, angle) in pixels and radians, of shape :math:`(N, 5)`.
        boxes2: of shape :math:`(M, 5)`, with M = N if ``aligned``.
        mode: "iou", or "iof" to divide by the area of the box of ``boxes1`` (the foreground).
        aligned: whether to compare boxes of equal index instead of all pairs.
        clockwise: whether a positive angle turns clockwise as seen in the image (y axis down).

    Returns:
        Tensor of shape :math:`(N,)` if ``aligned``, else :math:`(N, M)`.

    Raises:
        ValueError: if ``mode`` is unknown.

    Example:
        >>> upright = torch.tensor([[0.0, 0.0, 4.0, 2.0, 0.0]])
        >>> turned = torch.tensor([[0.0, 0.0, 4.0, 2.0, torch.pi / 2], [9.0, 9.0, 4.0, 2.0, 0.0]])
        >>> box_iou_rotated(upright, turned)  # they share 4 of 12 pixels
        tensor([[0.3333, 0.0000]])
    """
    if mode not in ("iou", "iof"):
        raise ValueError(f"mode must be 'iou' or 'iof', got {mode!r}")
    wants_gradient = torch.is_grad_enabled() and (boxes1.requires_grad or boxes2.requires_grad)
    if not wants_gradient and native("box_iou_rotated", boxes1, boxes2):
        return torch.ops.perception.box_iou_rotated(boxes1, boxes2, mode == "iof", aligned, clockwise)
    first, second = boxes1.double(), boxes2.double()
    if not clockwise:
        mirror = first.new_tensor([1, 1, 1, 1, -1])
        first, second = first * mirror, second * mirror
    if aligned:
        return paired_iou_rotated(first, second, mode).to(boxes1.dtype)
    with torch.no_grad():
        rows, columns = overlapping_pairs(extents(rotated_box_corners(first)), extents(rotated_box_corners(second)))
    overlap = first.new_zeros(len(first), len(second))
    overlap = overlap.index_put((rows, columns), paired_iou_rotated(first[rows], second[columns], mode))
    return overlap.to(boxes1.dtype)


def paired_iou_rotated(boxes1: Tensor, boxes2: Tensor, mode: str = "iou") -> Tensor:
    """Overlap (P,) of boxes (P, 5) of equal index, clockwise angles, in the boxes' precision (meant for float64)."""
    blocks = zip(boxes1.split(_PAIRS_AT_ONCE), boxes2.split(_PAIRS_AT_ONCE))
    return torch.cat([_paired_iou(a, b, mode) for a, b in blocks])


def _paired_iou(boxes1: Tensor, boxes2: Tensor, mode: str) -> Tensor:
    # In the frame of the second box that box is upright and centred.
    angle = boxes2[:, None, 4]
    corners = rotate(rotated_box_corners(_relative_to(boxes2, boxes1)), -angle)
    overlap = area_within_rectangle(corners, boxes2[:, 2:4] / 2)
    area1, area2 = boxes1[:, 2] * boxes1[:, 3], boxes2[:, 2] * boxes2[:, 3]
    base = area1 + area2 - overlap if mode == "iou" else area1
    empty = (area1 < _SMALLEST_AREA) | (area2 < _SMALLEST_AREA)
    return torch.where(empty, 0, overlap / torch.where(empty, 1, base))


def _relative_to(origin: Tensor, boxes: Tensor) -> Tensor:
    return torch.cat([boxes[:, :2] - origin[:, :2], boxes[:, 2:]], 1)


@native_kernel(
    "box_iou_rotated(Tensor boxes1, Tensor boxes2, bool iof, bool aligned, bool clockwise) -> Tensor", types=FULL
)
def _fake(boxes1, boxes2, iof, aligned, clockwise):
    return boxes1.new_empty(boxes1.shape[0]) if aligned else boxes1.new_empty(boxes1.shape[0], boxes2.shape[0])
