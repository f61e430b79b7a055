"""Detections of windows and levels become those of the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from perception.geometry.rotated_boxes import upright_bounds
from perception.geometry.suppression import suppress, suppress_rotated
from perception.ops.box_iou_rotated import box_iou_rotated

WITHIN_LEVEL, ACROSS_LEVELS = 0.4, 0.5
"""Overlaps above which two detections are one object, as released."""


def to_native(detections: Tensor, origin: Sequence[float], factor: float | Sequence[float]) -> Tensor:
    """Detections (N, 6) of a window as those of the native image.

    Args:
        detections: (cx, cy, w, h, angle, score) in pixels of the window.
        origin: (x, y) of the window on its level.
        factor: of the level's reduction; (x, y) where an odd size makes it differ. A box whose axes are stretched
            differently is then no rectangle; the one with the same centre, lengths and first side stands for it.
    """
    along_x, along_y = (factor, factor) if isinstance(factor, (int, float)) else factor
    boxes = detections[:, :5].clone()
    boxes[:, :2] += boxes.new_tensor(origin)
    if along_x == along_y:
        boxes[:, :4] *= along_x
    else:
        cos, sin = boxes[:, 4].cos(), boxes[:, 4].sin()
        boxes[:, :2] *= boxes.new_tensor([along_x, along_y])
        boxes[:, 2] *= torch.hypot(along_x * cos, along_y * sin)
        boxes[:, 3] *= torch.hypot(along_x * sin, along_y * cos)
        boxes[:, 4] = torch.atan2(along_y * sin, along_x * cos)
    return torch.cat([boxes, detections[:, 5:]], 1)


def merge_windows(detections: Sequence[Tensor], iou_threshold: float = WITHIN_LEVEL, inclusive: bool = False) -> Tensor:
    """Detections of a level (N, 6), by falling score, from those of its windows, all in pixels of one image.

    Args:
        inclusive: an overlap of exactly the threshold is enough, as in the released merging, which runs on the CPU.
    """
    each = [suppressed(one, iou_threshold, inclusive) for one in detections]
    return suppressed(_joined(each), iou_threshold, inclusive)


def merge_levels(levels: Sequence[Tensor], iou_threshold: float = ACROSS_LEVELS, inclusive: bool = False) -> Tensor:
    """Detections of the image (N, 6), by falling score, from those of its levels, all in its pixels.

    Args:
        inclusive: as in :func:`merge_windows`.
    """
    return suppressed(_joined(levels), iou_threshold, inclusive)


def without_parts(detections: Tensor, cut: Tensor, least: float = 0.5) -> Tensor:
    """Which detections stay, as a mask (N,), when parts go: those that their window cuts off, and of which more than a
    share lies in one that no window cuts off. Such a part may be the surer one, and then suppression would leave it.

    Args:
        detections: (N, 6) of all windows and levels, in pixels of one image.
        cut: (N,) whether each ends where its window does, while the image goes on.
        least: the share.
    """
    boxes, cuts = detections[:, :5].detach().cpu(), cut.cpu().numpy()

    def conflict(better: np.ndarray, worse: np.ndarray) -> np.ndarray:
        result = np.zeros(len(better), bool)
        pairs = np.flatnonzero(~cuts[better] & cuts[worse])
        inside = box_iou_rotated(boxes[worse[pairs]], boxes[better[pairs]], "iof", aligned=True)
        result[pairs] = inside.numpy() > least
        return result

    order = np.argsort(cuts, kind="stable")
    bounds = upright_bounds(boxes.double()).numpy()
    stay = torch.zeros(len(boxes), dtype=torch.bool)
    stay[torch.from_numpy(suppress(bounds, order, np.zeros(len(boxes), np.int64), conflict))] = True
    return stay.to(detections.device)


def suppressed(detections: Tensor, iou_threshold: float, inclusive: bool = False) -> Tensor:
    """Detections (N, 6) that no better one overlaps by more than a threshold (`inclusive`: by that), by falling score.

    Of equally good ones that overlap, numbers decide and not their order, so that the result depends on neither the
    order of the windows nor that of the levels.
    """
    keys = detections.detach().cpu().double().numpy()
    order = torch.from_numpy(np.lexsort((*keys[:, :5].T, -keys[:, 5]))).to(detections.device)
    ranked = detections[order]
    labels = torch.zeros(len(ranked), dtype=torch.long)
    return ranked[suppress_rotated(ranked[:, :5], ranked[:, 5], labels, iou_threshold, inclusive)]


def _joined(detections: Sequence[Tensor]) -> Tensor:
    """All detections, (0, 6) without any; mmcv's suppression leaves (0, 5) where nothing was found."""
    found = [one for one in detections if len(one)]
    if found:
        return torch.cat(found)
    return detections[0].new_zeros(0, 6) if detections else torch.zeros(0, 6)
