"""Rotated boxes and the suppression of overlapping ones."""

import math

import numpy as np
import pytest
import torch

from perception.geometry.rotated_boxes import as_le90, box_corners, upright_bounds
from perception.geometry.suppression import suppress, suppress_rotated
from perception.ops.nms_rotated import nms_rotated
from tests.ops.definitions import some_rotated_boxes


def test_corners_turn_clockwise_on_screen():
    upright = box_corners(torch.tensor([10.0, 20, 8, 4, 0]))
    assert upright.tolist() == [[6, 18], [14, 18], [14, 22], [6, 22]]
    turned = box_corners(torch.tensor([[10.0, 20, 8, 4, math.pi / 2]], dtype=torch.float64))
    expected = torch.tensor([[[12.0, 16], [12, 24], [8, 24], [8, 16]]], dtype=torch.float64)
    torch.testing.assert_close(turned, expected, atol=1e-12, rtol=0)


def test_le90_is_the_same_rectangle():
    boxes = some_rotated_boxes(200, seed=1, dtype=torch.float64)[0]
    boxes[:, 4] = torch.linspace(-7, 7, 200, dtype=torch.float64)
    boxes[3, 2] = boxes[3, 3]
    same = as_le90(boxes)
    assert (same[:, 2] >= same[:, 3]).all()
    assert (same[:, 4] >= -math.pi / 2).all()
    assert (same[:, 4] < math.pi / 2).all()
    before, after = (box_corners(x).flatten(1).view(200, 4, 2) for x in (boxes, same))
    distances = torch.cdist(before, after)
    assert distances.amin(2).max() < 1e-9
    assert distances.amin(1).max() < 1e-9


def test_bounds_hold_the_corners_tightly():
    boxes = some_rotated_boxes(100, seed=2, dtype=torch.float64)[0]
    corners = box_corners(boxes)
    torch.testing.assert_close(upright_bounds(boxes), torch.cat([corners.amin(1), corners.amax(1)], 1))


@pytest.mark.parametrize("threshold", [0.1, 0.5])
def test_suppression_agrees_with_nms(threshold):
    boxes, scores = some_rotated_boxes(600, seed=3)
    scores[100:150] = scores[100]  # ties keep the given order
    labels = torch.arange(600) % 4 - 1
    kept = suppress_rotated(boxes, scores, labels, threshold)
    assert kept.tolist() == nms_rotated(boxes, scores, threshold, labels).tolist()
    assert 0 < len(kept) < 600
    assert suppress_rotated(boxes[:0], scores[:0], labels[:0], threshold).shape == (0,)


def test_the_number_of_comparisons_is_linear():
    """At constant density ten times the boxes mean ten times the comparisons, not a hundred times."""
    compared = []

    def conflict(better, worse):
        compared.append(len(better))
        return np.zeros(len(better), bool)

    totals = []
    for count in (2000, 20000):
        rng = np.random.default_rng(0)
        low = rng.uniform(0, 10 * math.sqrt(count), (count, 2))
        compared.clear()
        kept = suppress(np.hstack([low, low + 10]), np.arange(count), np.zeros(count, np.int64), conflict)
        assert kept.tolist() == list(range(count))
        totals.append(sum(compared))
    assert totals[1] < 11 * totals[0]
