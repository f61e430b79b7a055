"""Average precision by length of objects."""

import numpy as np
import pytest
import torch

from perception.evaluation.length_ap import LENGTH_BINS, THRESHOLDS, evaluate_by_length, long_sides
from perception.evaluation.rotated_ap import Found, Truth, evaluate, mean_average_precision
from perception.geometry.rotated_boxes import box_corners


def boxes(*rows):
    return np.array(rows, np.float64).reshape(-1, 5)


def found(rows, scores, labels=None):
    return Found(boxes(*rows), np.array(scores, np.float64), np.array(labels or [0] * len(rows), np.int64))


def truth(*rows, labels=None):
    corners = box_corners(torch.from_numpy(boxes(*rows))).numpy()
    return Truth(corners, np.array(labels or [0] * len(rows), np.int64), np.zeros(len(rows), bool))


def scene(seed):
    """Objects, and detections that are near them or nowhere."""
    rng = np.random.default_rng(seed)
    rows = np.column_stack([rng.uniform(0, 3000, (30, 2)), rng.uniform(20, 1200, 30), rng.uniform(8, 40, 30)])
    rows = np.column_stack([rows, rng.uniform(-1.5, 1.5, 30)])
    noise = rng.normal(0, [2, 2, 8, 2, 0.01], (30, 5))
    stray = np.add(rows[:10], (1700, 900, 0, 0, 0))
    labels = rng.integers(0, 2, 30).tolist()
    return (
        found([*(rows + noise), *stray], rng.uniform(size=40), [*labels, *labels[:10]]),
        truth(*rows, labels=labels),
    )


SHORT, LONG = (100, 100, 40, 10, 0.3), (500, 500, 300, 20, 1.0)


def ap(results):
    return [result.average_precision[0.5] for result in results]


def test_long_sides():
    assert long_sides(truth(SHORT, LONG).corners) == pytest.approx([40, 300])
    assert long_sides(truth().corners).shape == (0,)


def test_an_overlap_of_exactly_a_threshold_is_enough():
    half = (100, 100, 20, 10, 0)
    wanted, given = [truth((100, 100, 40, 10, 0))], [found([half], [1.0])]
    (whole,) = evaluate_by_length(given, wanted, 1, bins=[(0, 100)])
    assert whole.average_precision[0.5] == pytest.approx(1)
    assert whole.average_precision[0.55] == 0
    (whole,) = evaluate_by_length(given, wanted, 1, bins=[(0, 100)], inclusive=False)
    assert whole.average_precision[0.5] == 0


def test_turned_boxes_overlap_by_exactly_a_threshold_too():
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.uniform(0, 16000, (50, 2)), rng.integers(10, 200, (50, 2)), rng.uniform(-1.5, 1.5, 50)])
    halves = rows * (1, 1, 0.5, 1, 1)
    images = [found([half], [1.0]) for half in halves], [truth(row) for row in rows]
    (whole,) = evaluate_by_length(*images, 1, bins=[(0, 400)])
    assert whole.average_precision[0.5] == pytest.approx(1)
    assert whole.average_precision[0.55] == 0


def test_objects_are_the_rectangles_around_their_corners():
    slanted = Truth(np.array([[[0.0, 0], [100, 0], [100, 10], [20, 10]]]), np.zeros(1, int), np.zeros(1, bool))
    (whole,) = evaluate_by_length([found([(50, 5, 100, 10, 0)], [1.0])], [slanted], 1, bins=[(100, 200)])
    assert whole.mean == pytest.approx(1)


def test_a_length_on_an_edge_belongs_to_the_bin_above():
    turned = [truth((300, 300, 50, 9, angle)) for angle in np.linspace(0.01, 3, 50)]
    below, above = evaluate_by_length([found([], [])] * 50, turned, 1, bins=[(0, 50), (50, 200)])
    assert (below.num_truths, above.num_truths) == (0, 50)


def test_one_bin_for_all_is_the_plain_precision():
    images = [scene(seed) for seed in range(3)]
    (whole,) = evaluate_by_length(*zip(*images), num_classes=2, bins=[(0, np.inf)])
    plain = [mean_average_precision(row) for row in evaluate(*zip(*images), 2, THRESHOLDS)]
    assert list(whole.average_precision.values()) == pytest.approx(plain)
    assert 0.1 < whole.mean < whole.average_precision[0.5] < 1
    assert whole.num_truths == 90
    bins = evaluate_by_length(*zip(*images), num_classes=2)
    assert sum(result.num_truths for result in bins) == 90


def test_empty_bins_are_0():
    short, middle, long, longest = evaluate_by_length([found([SHORT, LONG], [0.9, 0.8])], [truth(SHORT, LONG)], 1)
    assert [short.num_truths, middle.num_truths, long.num_truths, longest.num_truths] == [1, 0, 1, 0]
    assert ap([short, middle, long, longest]) == [1, 0, 1, 0]
    assert (short.low, short.high) == LENGTH_BINS[0]


def test_a_miss_counts_in_the_bin_of_its_own_length():
    """Strays ahead of the right detections: one of 45 pixels, one of 250."""
    strays = [(2000, 2000, 45, 9, 0), (2500, 2000, 250, 9, 0)]
    truths = [truth(SHORT, LONG)]
    for stray, expected in ((strays[:1], [0.5, 0, 1, 0]), (strays[1:], [1, 0, 0.5, 0]), (strays, [0.5, 0, 0.5, 0])):
        image = found([*stray, SHORT, LONG], [0.95] * len(stray) + [0.9, 0.8])
        assert ap(evaluate_by_length([image], truths, 1)) == pytest.approx(expected)


def test_in_an_image_without_objects_too():
    images = [found([SHORT], [0.5]), found([(2000, 2000, 9, 45, 0)], [0.9]), found([(2000, 2000, 9, 250, 0)], [0.9])]
    results = evaluate_by_length(images, [truth(SHORT), truth(), truth()], 1)
    assert ap(results) == pytest.approx([0.5, 0, 0, 0])


def test_what_finds_an_object_of_another_bin_is_neutral():
    """An object of 52 pixels found as one of 47; the same object found again is wrong in the object's bin alone."""
    objects = truth(SHORT, (800, 100, 52, 10, 0))
    near = (800, 100, 47, 10, 0)
    assert ap(evaluate_by_length([found([near, SHORT], [0.9, 0.8])], [objects], 1)) == [1, 1, 0, 0]
    twice = found([near, near, SHORT], [0.9, 0.85, 0.8])
    short, middle, *_ = evaluate_by_length([twice], [objects], 1)
    assert short.average_precision[0.5] == 1
    assert middle.average_precision[0.5] == 1  # the second comes after full recall
    assert short.average_precision[0.95] == pytest.approx(0.0 + 1 / 3)  # now both are strays of 47 pixels


def test_numbers_of_images_must_agree():
    with pytest.raises(ValueError, match="detections of 1 images"):
        evaluate_by_length([found([SHORT], [0.5])], [], 1)
