"""Rotated boxes: overlap against shapely, and suppression."""

import math

import pytest
import torch
from shapely import Polygon, affinity, box

from perception.ops.box_iou_rotated import box_iou_rotated
from perception.ops.nms_rotated import nms_rotated
from tests.ops.definitions import by_score, greedy_nms, some_rotated_boxes, strided


def polygon(rotated, clockwise=True):
    """Shapely's y axis points up, an image's down: a clockwise turn in the image is counter-clockwise there."""
    x, y, w, h, angle = rotated.tolist()
    upright = box(x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    return affinity.rotate(upright, angle if clockwise else -angle, origin=(x, y), use_radians=True)


def overlap(a: Polygon, b: Polygon, mode="iou"):
    if a.area == 0 or b.area == 0:
        return 0.0
    return a.intersection(b).area / (a.union(b).area if mode == "iou" else a.area)


def expected_overlaps(first, second, mode="iou", clockwise=True):
    second = [polygon(b, clockwise) for b in second]
    overlaps = [[overlap(polygon(a, clockwise), b, mode) for b in second] for a in first]
    return torch.tensor(overlaps, dtype=first.dtype)


@pytest.mark.parametrize("mode", ["iou", "iof"])
@pytest.mark.parametrize("clockwise", [True, False])
def test_box_iou_rotated(mode, clockwise):
    first, second = some_rotated_boxes(25, seed=1)[0], some_rotated_boxes(25, seed=2)[0]
    expected = expected_overlaps(first, second, mode, clockwise)
    result = box_iou_rotated(first, second, mode, clockwise=clockwise)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected, atol=2e-6, rtol=1e-5)
    aligned = box_iou_rotated(first, second, mode, aligned=True, clockwise=clockwise)
    torch.testing.assert_close(aligned, expected.diag(), atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(box_iou_rotated(strided(first), strided(second), mode, clockwise=clockwise), result)


def test_thousands_of_pairs():
    """Random, identical, nested, touching, thin and empty boxes, near and far from the origin."""
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(3000, 5, generator=generator, dtype=torch.float64)
    first = first * torch.tensor([50, 50, 40, 40, 2 * math.pi]) - torch.tensor([0, 0, 0, 0, math.pi])
    second = torch.rand(3000, 5, generator=generator, dtype=torch.float64)
    second = second * torch.tensor([50, 50, 40, 40, 2 * math.pi]) - torch.tensor([0, 0, 0, 0, math.pi])
    second[:300] = first[:300]  # identical
    second[300:600, :2], second[300:600, 4] = first[300:600, :2], first[300:600, 4]  # one centre and angle
    second[300:600, 2:4] = first[300:600, 2:4] * 0.5  # nested
    turn = first[600:900, 4]
    along = torch.stack([turn.cos(), turn.sin()], 1)  # of a box's own x axis
    second[600:900, 2:] = first[600:900, 2:]
    second[600:900, :2] = first[600:900, :2] + along * first[600:900, 2:3]  # touching along a side
    second[900:1200, 2] = 1e-3  # thin
    first[1000:1200, 3] = 1e-3  # both thin
    second[1200:1300, 3] = 0  # empty
    second[1300:1600, 4] = first[1300:1600, 4] + math.pi / 2  # at right angles
    first[1600:2000, :2] += 2000
    second[1600:2000, :2] += 2000
    for clockwise in (True, False):
        expected = [overlap(polygon(a, clockwise), polygon(b, clockwise)) for a, b in zip(first, second)]
        expected = torch.tensor(expected, dtype=torch.float64)
        result = box_iou_rotated(first, second, aligned=True, clockwise=clockwise)
        torch.testing.assert_close(result, expected, atol=1e-9, rtol=1e-7)
        by_reference = box_iou_rotated(first.clone().requires_grad_(), second, aligned=True, clockwise=clockwise)
        torch.testing.assert_close(by_reference.detach(), result, atol=1e-11, rtol=1e-9)
    single = box_iou_rotated(first.float(), second.float(), aligned=True)
    torch.testing.assert_close(single.double(), box_iou_rotated(first, second, aligned=True), atol=2e-3, rtol=1e-3)


def test_degenerate_pairs():
    boxes = torch.tensor(
        [
            [10, 10, 4, 2, 0.3],
            [10, 10, 4, 2, 0.3],  # identical
            [10, 10, 4, 2, 0.3 + math.pi],  # identical after half a turn
            [10, 10, 2, 4, 0.3 + math.pi / 2],  # identical after a quarter turn
            [10, 10, 2, 1, 0.3],  # nested, parallel sides
            [12, 10, 4, 2, 0.0],
            [14, 10, 4, 2, 0.0],  # overlaps by half, collinear sides
            [16, 10, 4, 2, 0.0],  # touches along a side
            [18, 12, 4, 2, 0.0],  # touches in a corner
            [10, 10, 400, 1e-2, 0.7],  # thin
            [10, 10, 0, 2, 0.0],  # no area
            [1e4, 1e4, 30, 20, -1.2],  # far away
            [10, 10, 1e3, 1e3, 0.1],  # holds all but the far one
        ],
        dtype=torch.float64,
    )
    expected = expected_overlaps(boxes, boxes)
    torch.testing.assert_close(box_iou_rotated(boxes, boxes), expected, atol=1e-9, rtol=1e-9)
    assert box_iou_rotated(boxes[1:2], boxes[:1]).item() == pytest.approx(1, abs=1e-12)


def test_thousands_of_random_pairs():
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(2, 1500, 5, generator=generator, dtype=torch.float64)
    boxes = boxes * torch.tensor([20.0, 20, 30, 30, 7]) - torch.tensor([0.0, 0, 0, 0, 3.5])
    # A third share their angle, and a third also a side.
    boxes[1, :1000, 4] = boxes[0, :1000, 4]
    boxes[1, :500, :2] = boxes[0, :500, :2] + torch.stack([boxes[0, :500, 4].cos(), boxes[0, :500, 4].sin()], 1) * 3
    boxes[1, :500, 3] = boxes[0, :500, 3]
    expected = torch.tensor([overlap(polygon(a), polygon(b)) for a, b in zip(*boxes)], dtype=torch.float64)
    torch.testing.assert_close(box_iou_rotated(*boxes, aligned=True), expected, atol=1e-9, rtol=1e-9)


def test_gradient():
    first = some_rotated_boxes(4, size=30, seed=5, dtype=torch.float64)[0].requires_grad_()
    second = some_rotated_boxes(3, size=30, seed=6, dtype=torch.float64)[0].requires_grad_()
    assert torch.autograd.gradcheck(box_iou_rotated, (first, second))
    assert torch.autograd.gradcheck(lambda a, b: box_iou_rotated(a, b, "iof"), (first, second))


def test_gradient_of_upright_boxes_is_finite():
    boxes = torch.tensor([[10.0, 10, 4, 2, 0], [11, 10.5, 4, 2, 0]], dtype=torch.float64, requires_grad=True)
    iou = box_iou_rotated(boxes[:1], boxes[1:])
    iou.sum().backward()
    # Overlap 3 x 1.5 of area 8 each: moving the second one right by d loses 1.5 d of overlap.
    union = 16 - 4.5
    assert iou.item() == pytest.approx(4.5 / union)
    assert boxes.grad[1, 0].item() == pytest.approx(-1.5 * 16 / union**2)
    assert boxes.grad.isfinite().all()


def test_no_boxes():
    boxes = some_rotated_boxes(3)[0]
    assert box_iou_rotated(boxes[:0], boxes).shape == (0, 3)
    assert box_iou_rotated(boxes, boxes[:0]).shape == (3, 0)
    assert box_iou_rotated(boxes[:0], boxes[:0], aligned=True).shape == (0,)
    assert nms_rotated(boxes[:0], torch.zeros(0), 0.5).shape == (0,)
    with pytest.raises(ValueError, match="giou"):
        box_iou_rotated(boxes, boxes, "giou")


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.6])
@pytest.mark.parametrize("with_labels", [False, True])
@pytest.mark.parametrize("clockwise", [True, False])
def test_nms_rotated(threshold, with_labels, clockwise):
    boxes, scores = some_rotated_boxes(150, seed=7)
    labels = torch.arange(150) % 3 if with_labels else None
    iou = box_iou_rotated(boxes, boxes, clockwise=clockwise)

    def suppresses(i, j):
        return iou[i, j] > threshold and (labels is None or labels[i] == labels[j])

    expected = greedy_nms(by_score(scores), suppresses)
    assert nms_rotated(boxes, scores, threshold, labels, clockwise).tolist() == expected
    assert nms_rotated(strided(boxes), scores, threshold, labels, clockwise).tolist() == expected


def test_nms_rotated_at_the_threshold():
    boxes = torch.tensor([[5.0, 0.5, 10, 1, 0], [1.5, 0.5, 3, 1, 0]])
    assert nms_rotated(boxes, torch.tensor([0.9, 0.8]), 0.3).tolist() == [0, 1]
    assert nms_rotated(boxes, torch.tensor([0.8, 0.9]), 0.2999).tolist() == [1]


def test_a_long_chain_of_suppressions():
    """Each box overlaps its neighbours only: every second one stays."""
    centre = torch.arange(60.0)
    boxes = torch.stack([centre, torch.zeros(60), torch.full((60,), 1.9), torch.ones(60), torch.zeros(60)], 1)
    assert nms_rotated(boxes, -centre, 0.1).tolist() == list(range(0, 60, 2))
