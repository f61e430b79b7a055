"""Axis-aligned boxes: overlap, and suppression in its three forms."""

import numpy as np
import pytest
import torch

from perception.ops.bbox_overlaps import bbox_overlaps
from perception.ops.nms import nms
from perception.ops.nms_match import nms_match
from perception.ops.soft_nms import soft_nms
from tests.ops.definitions import box_iou, by_score, greedy_nms, some_boxes, strided


@pytest.mark.parametrize("mode", ["iou", "iof"])
@pytest.mark.parametrize("offset", [0, 1])
def test_bbox_overlaps(mode, offset):
    first, second = some_boxes(9, seed=1)[0], some_boxes(9, seed=2)[0]
    expected = torch.stack([torch.stack([box_iou(a, b, offset, mode == "iof") for b in second]) for a in first])
    torch.testing.assert_close(bbox_overlaps(first, second, mode, offset=offset), expected)
    torch.testing.assert_close(bbox_overlaps(first, second, mode, True, offset), expected.diag())
    torch.testing.assert_close(bbox_overlaps(strided(first), strided(second), mode, offset=offset), expected)
    half = bbox_overlaps(first.half(), second.half(), mode, offset=offset)
    assert half.dtype == torch.half
    torch.testing.assert_close(half.float(), expected, atol=5e-3, rtol=0)


@pytest.mark.parametrize("offset", [0, 1])
def test_bbox_overlaps_of_boxes_with_corners_in_the_wrong_order(offset):
    ordered = torch.tensor([[0.0, 0, 8, 6], [3, 3, 3, 3]])
    turned = torch.tensor([[7.0, 0, 2, 6], [9, 9, 3, 9], [20, 30, 11, 32]])
    for first, second in ((ordered, turned), (turned, ordered), (turned, turned)):
        for mode in ("iou", "iof"):
            expected = torch.empty(len(first), len(second))
            for i, a in enumerate(first.tolist()):
                for j, b in enumerate(second.tolist()):
                    area, other = ((x2 - x1 + offset) * (y2 - y1 + offset) for x1, y1, x2, y2 in (a, b))
                    width = max(min(a[2], b[2]) - max(a[0], b[0]) + offset, 0)
                    height = max(min(a[3], b[3]) - max(a[1], b[1]) + offset, 0)
                    base = area + other - width * height if mode == "iou" else area
                    divisor = max(base, offset)
                    expected[i, j] = width * height / divisor if divisor else float("nan")
            got = bbox_overlaps(first, second, mode, offset=offset)
            torch.testing.assert_close(got, expected, equal_nan=True)


def test_bbox_overlaps_of_nothing_and_of_boxes_without_area():
    boxes = some_boxes(3)[0]
    assert bbox_overlaps(boxes[:0], boxes).shape == (0, 3)
    assert bbox_overlaps(boxes, boxes[:0]).shape == (3, 0)
    point = torch.tensor([[5.0, 5, 5, 5]])
    assert bbox_overlaps(point, point).isnan().all()
    assert bbox_overlaps(point, point, offset=1).item() == 1
    with pytest.raises(ValueError, match="giou"):
        bbox_overlaps(boxes, boxes, "giou")


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.7])
def test_nms(offset, threshold):
    boxes, scores = some_boxes(120, seed=3)
    limit = torch.tensor(threshold)
    expected = greedy_nms(by_score(scores), lambda i, j: box_iou(boxes[i], boxes[j], offset) > limit)
    assert nms(boxes, scores, threshold, offset).tolist() == expected
    assert nms(strided(boxes), strided(scores), threshold, offset).tolist() == expected
    assert nms(boxes.double(), scores.double(), threshold, offset).tolist() == expected


def test_nms_at_the_threshold():
    """An overlap of exactly the threshold survives, also where float32 rounds the threshold up (0.3 and 0.6)."""
    scores = torch.tensor([0.9, 0.8])
    for threshold, inner in ((0.3, 3), (0.5, 5), (0.6, 6), (0.7, 7)):
        boxes = torch.tensor([[0.0, 0, 10, 1], [0, 0, inner, 1]])
        assert box_iou(*boxes) == torch.tensor(threshold)
        assert nms(boxes, scores, threshold).tolist() == [0, 1]
        assert nms(boxes, scores, threshold - 1e-6).tolist() == [0]


def test_nms_of_equal_scores_keeps_the_given_order():
    boxes = some_boxes(1)[0].repeat(50, 1)
    assert nms(boxes, torch.full((50,), 0.5), 0.5).tolist() == [0]
    apart = boxes + torch.arange(50)[:, None] * 1000.0
    assert nms(apart, torch.full((50,), 0.5), 0.5).tolist() == list(range(50))


def test_nms_of_nothing_and_wrong_offset():
    assert nms(torch.zeros(0, 4), torch.zeros(0), 0.5).shape == (0,)
    with pytest.raises(ValueError, match="2"):
        nms(*some_boxes(2), 0.5, offset=2)


def soft_nms_by_loops(boxes, scores, threshold, sigma, min_score, method, offset):
    """In place on lists, with the removed entry overwritten by the last one."""
    boxes, scores, index = list(boxes), [np.float32(s) for s in scores.tolist()], list(range(len(boxes)))
    i = 0
    while i < len(boxes):
        best = max(range(i, len(boxes)), key=lambda k: scores[k])
        for column in (boxes, scores, index):
            column[i], column[best] = column[best], column[i]
        k = i + 1
        while k < len(boxes):
            iou = np.float32(box_iou(boxes[i], boxes[k], offset).item())
            if method == "gaussian":
                scores[k] *= np.exp(-(iou * iou) / np.float32(sigma))
            elif iou >= np.float32(threshold):
                scores[k] *= np.float32(0) if method == "naive" else 1 - iou
            if scores[k] < np.float32(min_score):
                for column in (boxes, scores, index):
                    column[k] = column[-1]
                    column.pop()
            else:
                k += 1
        i += 1
    return torch.tensor(np.array(scores)), index


@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("min_score", [0.0, 1e-3, 0.3])
def test_soft_nms(method, offset, min_score):
    boxes, scores = some_boxes(40, seed=4)
    scores = (scores * 8).round() / 8  # many equal scores: the order of removal decides
    dets, index = soft_nms(boxes, scores, 0.3, 0.5, min_score, method, offset)
    expected_scores, expected_index = soft_nms_by_loops(boxes, scores, 0.3, 0.5, min_score, method, offset)
    assert index.tolist() == expected_index
    torch.testing.assert_close(dets[:, 4], expected_scores, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(dets[:, :4], boxes[index])


def test_soft_nms_edge_cases():
    dets, index = soft_nms(torch.zeros(0, 4), torch.zeros(0))
    assert dets.shape == (0, 5)
    assert index.shape == (0,)
    # The first is kept however low its score; boxes without area have no defined overlap with each other.
    boxes = torch.tensor([[4.0, 3, 5, 3], [4, 3, 5, 4], [3, 1, 3, 1], [3, 1, 3, 1], [3, 1, 3, 1], [3, 1, 3, 1]])
    scores = torch.tensor([0.9, 0.9, 0.5, 0.5, 0.4, 0.0])
    assert soft_nms(boxes, scores, 0.6)[1].tolist() == [0, 1, 2, 3, 4]
    assert soft_nms(boxes[:1], torch.tensor([1e-6]))[1].tolist() == [0]
    original = scores.clone()
    soft_nms(boxes, scores, method="naive")
    assert torch.equal(scores, original)
    with pytest.raises(ValueError, match="quadratic"):
        soft_nms(boxes, scores, method="quadratic")


@pytest.mark.parametrize("threshold", [0.05, 0.5])
def test_nms_match(threshold):
    boxes, scores = some_boxes(80, seed=5)
    limit = torch.tensor(threshold)
    groups, remaining = [], by_score(scores)
    while remaining:
        best, rest = remaining[0], remaining[1:]
        matched = [j for j in rest if box_iou(boxes[best], boxes[j]) >= limit]
        groups.append([best, *matched])
        remaining = [j for j in rest if j not in matched]
    assert [group.tolist() for group in nms_match(boxes, scores, threshold)] == groups
    assert nms_match(boxes[:0], scores[:0], threshold) == []


def test_nms_match_counts_equality():
    boxes = torch.tensor([[0.0, 0, 10, 1], [0, 0, 3, 1]])
    assert [g.tolist() for g in nms_match(boxes, torch.tensor([0.9, 0.8]), 0.3)] == [[0, 1]]
