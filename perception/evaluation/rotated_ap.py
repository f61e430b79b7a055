"""Average precision of rotated boxes, as DOTA's server and PASCAL VOC define it.

Detections of a class are visited by falling score (equal scores: in their given order). Each goes to the object of its
image that it overlaps most. Beyond the threshold the first detection of an object is right and the others are wrong;
detections of difficult objects count neither way; at or below the threshold a detection is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmdet.evaluation.functional import average_precision
from torch import Tensor

from perception.geometry.rotated_boxes import upright_bounds
from perception.ops.box_pairs import extents, overlapping_pairs
from perception.ops.polygons import area_within_rectangle, polygon_area, rotate


@dataclass(frozen=True)
class Found:
    """Detections of an image: `boxes` `[N, 5]` (cx, cy, w, h, angle in radians), `scores` `[N]`, `labels` `[N]`."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Truth:
    """Objects of an image: `corners` `[M, 4, 2]` of any simple quadrilaterals, `labels` `[M]`, `difficult` `[M]`."""

    corners: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray


@dataclass(frozen=True)
class ClassResult:
    """Of one class at one threshold; `recall` and `precision` `[N]` after each detection, by falling score."""

    num_truths: int
    num_found: int
    recall: np.ndarray
    precision: np.ndarray
    average_precision: float


def evaluate(
    found: Sequence[Found],
    truths: Sequence[Truth],
    num_classes: int,
    thresholds: Sequence[float],
    mode: str = "11points",
) -> list[list[ClassResult]]:
    """Results `[threshold][class]` over the images of `found` and `truths`.

    Args:
        thresholds: overlaps that a right detection exceeds.
        mode: "11points" (VOC 2007, DOTA) or "area" (VOC 2012).

    Raises:
        ValueError: the numbers of images differ.
    """
    everything = pooled(found, truths)
    return [
        [class_result(everything, label, threshold, mode) for label in range(num_classes)] for threshold in thresholds
    ]


def mean_average_precision(results: Sequence[ClassResult]) -> float:
    """The mean over the classes that have objects, 0 if none has."""
    values = [result.average_precision for result in results if result.num_truths]
    return float(np.mean(values)) if values else 0.0


def best_matches(found: Found, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """For each detection its largest overlap `[N]` with an object of its class, and that object `[N]`.

    Of equal overlaps the first object counts; without any the overlap is 0 and the object -1.
    """
    boxes, corners = (torch.from_numpy(array).double() for array in (found.boxes, truth.corners))
    rows, columns = _touching_of_one_class(boxes, found.labels, corners, truth.labels)
    overlaps = quadrilateral_iou(boxes[rows], corners[columns]).numpy()
    order = np.lexsort((columns, -overlaps, rows))
    _, first = np.unique(rows[order], return_index=True)
    best = order[first]
    overlap, index = np.zeros(len(boxes)), np.full(len(boxes), -1)
    overlap[rows[best]], index[rows[best]] = overlaps[best], columns[best]
    index[overlap == 0] = -1
    return overlap, index


def _touching_of_one_class(
    boxes: Tensor, labels: np.ndarray, corners: Tensor, truth_labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Indices (P,), (P,) of the pairs of equal label whose bounds touch."""
    bounds, truth_bounds = upright_bounds(boxes), extents(corners)
    rows, columns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for label in np.unique(truth_labels):
        mine, wanted = np.flatnonzero(labels == label), np.flatnonzero(truth_labels == label)
        first, second = overlapping_pairs(bounds[mine], truth_bounds[wanted])
        rows.append(mine[first.numpy()])
        columns.append(wanted[second.numpy()])
    return np.concatenate(rows), np.concatenate(columns)


def quadrilateral_iou(boxes: Tensor, corners: Tensor) -> Tensor:
    """Intersection over union (P,) of rotated boxes (P, 5) and simple quadrilaterals (P, 4, 2) of equal index.

    Example:
        >>> corners = torch.tensor([[[0.0, 0.0], [4.0, 0.0], [4.0, 2.0], [0.0, 2.0]]])
        >>> quadrilateral_iou(torch.tensor([[2.0, 1.0, 2.0, 2.0, 0.0]]), corners)
        tensor([0.5000])
    """
    # In the frame of the box that box is upright and centred.
    relative = rotate(corners - boxes[:, None, :2], -boxes[:, None, 4])
    shared = area_within_rectangle(relative, boxes[:, 2:4] / 2)
    union = boxes[:, 2] * boxes[:, 3] + polygon_area(corners).abs() - shared
    return torch.where(union > 0, shared / torch.where(union > 0, union, 1), 0)


# ------------------------------------------------------------------------------------------------------- all images


@dataclass(frozen=True)
class Pooled:
    """All images together.

    Attributes:
        scores, labels: `[N]` of all detections.
        overlap, match: `[N]` their largest overlap with an object of their class, and that object (counted through all
            images; whatever where there is none).
        truth_labels, difficult: `[M]` of all objects.
    """

    scores: np.ndarray
    labels: np.ndarray
    overlap: np.ndarray
    match: np.ndarray
    truth_labels: np.ndarray
    difficult: np.ndarray


def pooled(found: Sequence[Found], truths: Sequence[Truth]) -> Pooled:
    """Detections and objects of all images, matched within each.

    Raises:
        ValueError: the numbers of images differ.
    """
    if len(found) != len(truths):
        raise ValueError(f"detections of {len(found)} images do not go with objects of {len(truths)}")
    overlaps, matches, before = [np.zeros(0)], [np.zeros(0, np.int64)], 0
    for one, truth in zip(found, truths):
        overlap, match = best_matches(one, truth)
        overlaps.append(overlap)
        matches.append(match + before)
        before += len(truth.labels)
    return Pooled(
        scores=_joined([one.scores for one in found], np.float64),
        labels=_joined([one.labels for one in found], np.int64),
        overlap=np.concatenate(overlaps),
        match=np.concatenate(matches),
        truth_labels=_joined([truth.labels for truth in truths], np.int64),
        difficult=_joined([truth.difficult for truth in truths], bool),
    )


def _joined(arrays: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *arrays]).astype(dtype)


def class_result(everything: Pooled, label: int, threshold: float, mode: str) -> ClassResult:
    """Of one class; arguments as those of :func:`evaluate`."""
    mine = np.flatnonzero(everything.labels == label)
    mine = mine[np.argsort(-everything.scores[mine], kind="stable")]
    near = everything.overlap[mine] > threshold
    match = np.where(near, everything.match[mine], -1)
    neutral = near & np.append(everything.difficult, False)[match]
    right = np.zeros(len(mine), bool)
    right[np.unique(match, return_index=True)[1]] = True
    right &= near & ~neutral
    wrong = ~right & ~neutral
    num_truths = int(((everything.truth_labels == label) & ~everything.difficult).sum())
    num_right, num_wrong = right.cumsum(), wrong.cumsum()
    recall = num_right / max(num_truths, 1)
    precision = num_right / np.maximum(num_right + num_wrong, 1)
    score = float(average_precision(recall, precision, mode)) if num_truths and len(mine) else 0.0
    return ClassResult(num_truths, len(mine), recall, precision, score)
