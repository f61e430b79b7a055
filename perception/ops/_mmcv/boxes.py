"""Boxes: suppression and overlap."""

import torch
from torch import Tensor

from perception.ops import bbox_overlaps as _bbox_overlaps
from perception.ops import box_iou_quadri as _box_iou_quadri
from perception.ops import box_iou_rotated as _box_iou_rotated
from perception.ops import convex_iou as _convex_iou
from perception.ops import min_area_polygons as _min_area_polygons
from perception.ops import nms as _nms
from perception.ops import nms_match as _nms_match
from perception.ops import nms_quadri as _nms_quadri
from perception.ops import nms_rotated as _nms_rotated
from perception.ops import soft_nms as _soft_nms
from perception.ops import sort_vertices as _sort_vertices
from perception.ops._mmcv._common import kernel

__all__ = [
    "bbox_overlaps",
    "box_iou_quadri",
    "box_iou_rotated",
    "convex_giou",
    "convex_iou",
    "diff_iou_rotated_sort_vertices_forward",
    "min_area_polygons",
    "nms",
    "nms_match",
    "nms_quadri",
    "nms_rotated",
    "softnms",
]

_MODES = ("iou", "iof")


@kernel
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    return _nms.nms(boxes, scores, iou_threshold, offset)


@kernel
def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    kept, indices = _soft_nms.soft_nms(
        boxes, scores, iou_threshold, sigma, min_score, _soft_nms.METHODS[method], offset
    )
    dets[: len(kept)] = kept
    return indices


@kernel
def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    return [group.tolist() for group in _nms_match.nms_match(dets[:, :4], dets[:, 4], iou_threshold)]


@kernel
def nms_rotated(
    dets: Tensor,
    scores: Tensor,
    order: Tensor,
    dets_sorted: Tensor,
    labels: Tensor,
    iou_threshold: float,
    multi_label: bool,
) -> Tensor:
    return _nms_rotated.nms_rotated(dets[:, :5], scores, iou_threshold, labels if multi_label else None)


@kernel
def nms_quadri(
    dets: Tensor, scores: Tensor, order: Tensor, dets_sorted: Tensor, iou_threshold: float, multi_label: bool
) -> Tensor:
    return _nms_quadri.nms_quadri(dets[:, :8], scores, iou_threshold, dets[:, 8] if multi_label else None)


@kernel
def bbox_overlaps(bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int) -> None:
    ious.copy_(_bbox_overlaps.bbox_overlaps(bboxes1, bboxes2, _MODES[mode], aligned, offset))


@kernel
def box_iou_rotated(boxes1: Tensor, boxes2: Tensor, ious: Tensor, mode_flag: int, aligned: bool) -> None:
    # mmrotate's evaluation leaves the scores in a sixth column.
    overlap = _box_iou_rotated.box_iou_rotated(boxes1[:, :5], boxes2[:, :5], _MODES[mode_flag], aligned)
    ious.copy_(overlap.reshape(ious.shape))


@kernel
def box_iou_quadri(boxes1: Tensor, boxes2: Tensor, ious: Tensor, mode_flag: int, aligned: bool) -> None:
    overlap = _box_iou_quadri.box_iou_quadri(boxes1, boxes2, _MODES[mode_flag], aligned)
    ious.copy_(overlap.reshape(ious.shape))


@kernel
def convex_iou(pointsets: Tensor, polygons: Tensor, ious: Tensor) -> None:
    ious.copy_(_convex_iou.convex_iou(pointsets, polygons))


@kernel
def convex_giou(pointsets: Tensor, polygons: Tensor, output: Tensor) -> None:
    with torch.enable_grad():
        points = pointsets.detach().requires_grad_()
        giou = _convex_iou.convex_giou(points, polygons)
        (gradient,) = torch.autograd.grad(giou.sum(), points)
    output[:, :-1] = gradient
    output[:, -1] = giou.detach()


@kernel
def min_area_polygons(pointsets: Tensor, polygons: Tensor) -> None:
    polygons.copy_(_min_area_polygons.min_area_polygons(pointsets))


@kernel
def diff_iou_rotated_sort_vertices_forward(vertices: Tensor, mask: Tensor, num_valid: Tensor) -> Tensor:
    return _sort_vertices.sort_vertices(vertices, mask).int()
