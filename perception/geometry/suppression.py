"""Non-maximum suppression whose cost grows with the number of boxes that touch, not with all pairs.

For detections of a large scene: a tree over the boxes' bounds finds the few that can overlap.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import shapely
import torch
from torch import Tensor

from perception.ops.box_iou_rotated import box_iou_rotated

from .rotated_boxes import upright_bounds

# Boxes that look for their neighbours at once; bounds the memory in crowded scenes.
_AT_ONCE = 8192

Conflict = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Says of pairs of boxes (P,) and (P,), the better one first, which exclude each other, as a mask (P,)."""


def suppress(bounds: np.ndarray, order: np.ndarray, labels: np.ndarray, conflict: Conflict) -> np.ndarray:
    """Greedy suppression: in the given order, each box that stays removes those of its label that it conflicts with.

    Args:
        bounds: (N, 4) xyxy; boxes whose bounds do not touch never conflict.
        order: (N,) indices, best first.
        labels: (N,) integers; boxes of different labels do not remove one another.
        conflict: called with indices of boxes.

    Returns:
        Indices (K,) of the boxes that stay, best first.

    Example:
        >>> bounds = np.array([[0, 0, 4, 4], [1, 0, 5, 4], [9, 9, 12, 12]])
        >>> order, labels = np.array([1, 0, 2]), np.zeros(3, np.int64)
        >>> suppress(bounds, order, labels, lambda first, second: np.ones(len(first), bool))  # whatever touches
        array([1, 2])
    """
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    # Offsets that keep the labels apart let one tree serve them all.
    low = bounds[:, :2].min(0, initial=0)
    spread = bounds[:, 2:].max(0, initial=0) - low + 1
    _, dense = np.unique(labels, return_inverse=True)
    apart = bounds.astype(np.float64)
    apart[:, 0::2] += (2 * spread[0] * dense)[:, None]
    shapes = shapely.box(*apart.T)
    tree = shapely.STRtree(shapes)
    better, worse = [], []
    for start in range(0, len(shapes), _AT_ONCE):
        first, second = tree.query(shapes[start : start + _AT_ONCE])
        first = first + start
        forward = ranks[first] < ranks[second]
        first, second = first[forward], second[forward]
        excluded = conflict(first, second)
        better.append(ranks[first[excluded]])
        worse.append(ranks[second[excluded]])
    if not better:
        return np.zeros(0, np.int64)
    return order[_settle(len(order), np.concatenate(better), np.concatenate(worse))]


def suppress_rotated(
    boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float, inclusive: bool = False
) -> Tensor:
    """What :func:`perception.ops.nms_rotated.nms_rotated` computes, at a cost that is linear for scattered boxes.

    Args:
        boxes: (N, 5) rotated boxes.
        scores: (N,).
        labels: (N,) integers.
        iou_threshold: a box is removed when its overlap with a better one of its label exceeds it.
        inclusive: an overlap of exactly the threshold, in float32, is enough: the rule of mmcv's kernel for CPUs, where
            that for GPUs has the other.

    Returns:
        Indices (K,) of the boxes that stay, best first.
    """

    def conflict(better: np.ndarray, worse: np.ndarray) -> np.ndarray:
        overlap = box_iou_rotated(boxes[better], boxes[worse], aligned=True)
        return (overlap.float() >= iou_threshold if inclusive else overlap > iou_threshold).numpy()

    boxes = boxes.detach().cpu()
    order = torch.argsort(scores.detach().cpu(), descending=True, stable=True)
    bounds = upright_bounds(boxes.double()).numpy()
    return torch.from_numpy(suppress(bounds, order.numpy(), labels.cpu().numpy(), conflict)).to(scores.device)


def _settle(count: int, better: np.ndarray, worse: np.ndarray) -> np.ndarray:
    """Ranks that stay when, in order, each that stays removes ``worse[k]`` > ``better[k]``, its own rank."""
    keep = np.ones(count, bool)
    order = np.argsort(better, kind="stable")
    removers, starts = np.unique(better[order], return_index=True)
    for remover, removed in zip(removers, np.split(worse[order], starts[1:])):
        if keep[remover]:
            keep[removed] = False
    return np.flatnonzero(keep)
