"""Soft non-maximum suppression (Bodla et al., arXiv:1704.04503)."""

import torch
from torch import Tensor

from perception.ops._dtype import as_float, round_to_dtype
from perception.ops.backend import native
from perception.ops.registration import FULL, native_kernel

__all__ = ["soft_nms"]

METHODS = ("naive", "linear", "gaussian")  # in mmcv's order


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: str = "linear",
    offset: int = 0,
) -> tuple[Tensor, Tensor]:
    r"""Greedy suppression that lowers the scores of overlapping boxes instead of dropping them.

    The highest box is taken, the others' scores are multiplied by a weight that depends on their IoU with it, boxes
    that fall below ``min_score`` are removed, and so on. The weight is

    - ``"naive"``: 0 where IoU >= threshold (note: not strictly greater as in :func:`perception.ops.nms.nms`),
    - ``"linear"``: 1 - IoU where IoU >= threshold,
    - ``"gaussian"``: :math:`\exp(-\mathrm{IoU}^2 / \sigma)` everywhere; the threshold is not used.

    The highest box itself is kept even when its score is below ``min_score``.

    Args:
        boxes: xyxy boxes in pixels, of shape :math:`(N, 4)`.
        scores: of shape :math:`(N,)`.
        iou_threshold: IoU from which "naive" and "linear" act.
        sigma: width of the Gaussian.
        min_score: boxes whose lowered score is below this are removed.
        method: "naive", "linear" or "gaussian".
        offset: 1 for the convention in which a box from x1 to x2 is x2 - x1 + 1 pixels wide, else 0.

    Returns:
        The kept boxes with their lowered scores, of shape :math:`(K, 5)`, and their indices, int64 of shape
        :math:`(K,)`, in the order in which they were taken.

    Raises:
        ValueError: if ``method`` is unknown.
    """
    if method not in METHODS:
        raise ValueError(f"method must be 'naive', 'linear' or 'gaussian', got {method!r}")
    boxes = as_float(boxes.detach())
    scores, dtype = scores.detach().to(boxes.dtype), boxes.dtype
    threshold, lowest = round_to_dtype(iou_threshold, dtype), round_to_dtype(min_score, dtype)
    if native("soft_nms", boxes, scores):
        return torch.ops.perception.soft_nms(boxes, scores, threshold, sigma, lowest, METHODS.index(method), offset)
    # Many small dependent steps: the CPU is the right place for them whatever the input's device.
    device, boxes = boxes.device, boxes.cpu()
    areas = (boxes[:, 2] - boxes[:, 0] + offset) * (boxes[:, 3] - boxes[:, 1] + offset)
    # One column per candidate: x1, y1, x2, y2, score, area.
    state = torch.cat([boxes.T, scores.to(boxes)[None], areas[None]])
    index = torch.arange(len(boxes))

    count, taken = len(boxes), 0
    while taken < count:
        best = taken + _first_maximum(state[4, taken:count])
        _swap(state, taken, best)
        _swap(index, taken, best)
        chosen, rest = state[:, taken], state[:, taken + 1 : count]
        iou = _iou(chosen, rest, offset)
        if method == "naive":
            rest[4].masked_fill_(iou >= threshold, 0)
        elif method == "linear":
            rest[4] *= torch.where(iou >= threshold, 1 - iou, 1)
        else:
            rest[4] *= torch.exp(-(iou * iou) / sigma)
        taken += 1
        low = rest[4] < lowest
        if low.any():
            order = _fill_gaps_from_end(low) + taken
            state[:, taken : taken + len(order)] = state[:, order]
            index[taken : taken + len(order)] = index[order]
            count = taken + len(order)
    return state[:5, :count].T.contiguous().to(device), index[:count].to(device)


def _first_maximum(scores: Tensor) -> int:
    # A NaN score (two boxes of no area under "gaussian") never loses to a later one and never beats an earlier one.
    if scores[0].isnan():
        return 0
    return int(scores.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).argmax())


def _swap(rows: Tensor, i: int, j: int) -> None:
    rows[..., [i, j]] = rows[..., [j, i]]


def _iou(box: Tensor, others: Tensor, offset: int) -> Tensor:
    width = (torch.minimum(box[2], others[2]) - torch.maximum(box[0], others[0]) + offset).clamp(min=0)
    height = (torch.minimum(box[3], others[3]) - torch.maximum(box[1], others[1]) + offset).clamp(min=0)
    overlap = width * height
    return overlap / (box[5] + others[5] - overlap)


def _fill_gaps_from_end(removed: Tensor) -> Tensor:
    """Order in which the remaining candidates stand after each removed one was overwritten by the last.

    mmcv removes in this way; the order decides which of two equal scores is taken first.
    """
    kept = len(removed) - int(removed.sum())
    order = torch.arange(kept)
    gaps = removed[:kept].nonzero().flatten()
    tail = kept + (~removed[kept:]).nonzero().flatten()
    order[gaps] = tail.flip(0)
    return order


@native_kernel(
    "soft_nms(Tensor boxes, Tensor scores, float iou_threshold, float sigma, float min_score, int method, int offset) "
    "-> (Tensor, Tensor)",
    types=FULL,
)
def _fake(boxes, scores, iou_threshold, sigma, min_score, method, offset):
    kept = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty(kept, 5), boxes.new_empty(kept, dtype=torch.long)
