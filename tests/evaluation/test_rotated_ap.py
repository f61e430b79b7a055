"""Average precision equals that of an independent evaluation, and mmrotate's where that is right."""

from types import SimpleNamespace

import numpy as np
import pytest
import shapely
import torch
from mmrotate.evaluation.functional import mean_ap as stock

from perception.evaluation.rotated_ap import (
    Found,
    Truth,
    best_matches,
    evaluate,
    mean_average_precision,
    quadrilateral_iou,
)
from perception.ops.box_iou_rotated import box_iou_rotated
from perception.ops.polygons import rotated_box_corners
from tests.evaluation import reference

NUM_CLASSES = 3


def corners_of(boxes):
    return rotated_box_corners(torch.as_tensor(boxes, dtype=torch.float64).reshape(-1, 5)).numpy()


def random_boxes(rng, number):
    return np.concatenate(
        [rng.uniform(0, 120, (number, 2)), rng.uniform(8, 40, (number, 2)), rng.uniform(-1.5, 1.5, (number, 1))], 1
    )


def make_images(seed, *, ties=True, only_difficult=True):
    """Objects with detections that hit, nearly hit, repeat or miss them; some images have none."""
    rng = np.random.default_rng(seed)
    found, truths = [], []
    for image in range(14):
        number = 0 if image % 5 == 0 else int(rng.integers(1, 9))
        boxes, labels = random_boxes(rng, number), rng.integers(0, NUM_CLASSES, number)
        difficult = rng.uniform(size=number) < 0.25
        if image % 7 == 2:
            difficult[:] = only_difficult
        if not only_difficult and number:
            difficult[0] = False
        truths.append(Truth(corners_of(boxes), labels, difficult))
        again = np.repeat(np.arange(number), rng.integers(0, 4, number))
        near = boxes[again] + rng.normal(0, 1, (len(again), 5)) * [2, 2, 2, 2, 0.1]
        stray = random_boxes(rng, int(rng.integers(0, 5)))
        every = np.concatenate([near, stray]).clip([-50, -50, 1, 1, -4])
        names = np.concatenate([labels[again], rng.integers(0, NUM_CLASSES, len(stray))])
        scores = rng.uniform(size=len(every)).round(1 if ties else 9)
        found.append(Found(every, scores, names))
    return found, truths


@pytest.mark.parametrize("mode", ["11points", "area"])
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_an_independent_evaluation(seed, mode):
    found, truths = make_images(seed)
    thresholds = (0.3, 0.5, 0.75)
    for threshold, results in zip(thresholds, evaluate(found, truths, NUM_CLASSES, thresholds, mode)):
        for label, result in enumerate(results):
            theirs = [
                (image, score, corners)
                for image, one in enumerate(found)
                for corners, score, name in zip(corners_of(one.boxes), one.scores, one.labels)
                if name == label
            ]
            wanted = {
                image: [(c, d) for c, d, name in zip(one.corners, one.difficult, one.labels) if name == label]
                for image, one in enumerate(truths)
            }
            expected = reference.average_precision(theirs, wanted, threshold, mode)
            assert result.average_precision == pytest.approx(expected, abs=1e-6)
            assert 0 < expected < 1
            assert result.num_found == len(theirs)
            assert result.num_truths == sum(not d for objects in wanted.values() for _, d in objects)


def test_equal_to_mmrotates_where_that_is_right(monkeypatch):
    """Without images all of whose objects are difficult: mmrotate forgets these objects."""
    # Its pool of new processes would import everything again for each of them.
    pool = SimpleNamespace(starmap=lambda function, items: [function(*item) for item in items], close=lambda: None)
    monkeypatch.setattr(stock, "get_context", lambda _: SimpleNamespace(Pool=lambda _: pool))
    # It leaves the scores in a sixth column.
    monkeypatch.setattr(stock, "box_iou_rotated", lambda first, second: box_iou_rotated(first[:, :5], second[:, :5]))

    def of_mmrotate(found, boxes, labels, difficult):
        detections = [
            [np.column_stack([f.boxes, f.scores])[f.labels == k].astype(np.float32) for k in range(NUM_CLASSES)]
            for f in found
        ]
        annotations = [
            {
                "bboxes": b[~d].astype(np.float32),
                "labels": n[~d],
                "bboxes_ignore": b[d].astype(np.float32),
                "labels_ignore": n[d],
            }
            for b, n, d in zip(boxes, labels, difficult)
        ]
        return stock.eval_rbbox_map(detections, annotations, iou_thr=0.5, logger="silent", nproc=1)

    for only_difficult in (False, True):
        found, truths = make_images(5, ties=False, only_difficult=only_difficult)
        boxes = [boxes_of(truth.corners) for truth in truths]
        score, classes = of_mmrotate(found, boxes, [t.labels for t in truths], [t.difficult for t in truths])
        (results,) = evaluate(found, truths, NUM_CLASSES, [0.5])
        ours = [result.average_precision for result in results]
        if only_difficult:
            assert score < mean_average_precision(results) - 1e-3
        else:
            assert score == pytest.approx(mean_average_precision(results), abs=1e-6)
            np.testing.assert_allclose([one["ap"] for one in classes], ours, atol=1e-6)


def boxes_of(corners):
    """Rotated boxes of exact rectangles."""
    edges = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 1]
    sizes = [np.hypot(edge[:, 0], edge[:, 1]) for edge in edges]
    return np.column_stack([corners.mean(axis=1), *sizes, np.arctan2(edges[0][:, 1], edges[0][:, 0])])


def test_overlap_with_quadrilaterals_that_are_not_rectangles():
    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, 400)
    corners = corners_of(boxes + rng.normal(0, 3, boxes.shape) * [1, 1, 0, 0, 0.1]) + rng.normal(0, 4, (400, 4, 2))
    simple = np.array([shapely.Polygon(quad).is_simple and shapely.Polygon(quad).is_valid for quad in corners])
    boxes, corners = boxes[simple], corners[simple]
    ours = quadrilateral_iou(torch.from_numpy(boxes), torch.from_numpy(corners)).numpy()
    expected = [reference.overlap(quad, other) for quad, other in zip(corners_of(boxes), corners)]
    np.testing.assert_allclose(ours, expected, atol=1e-9)
    assert simple.sum() > 300


def test_a_detection_belongs_to_the_object_of_its_class_that_it_overlaps_most():
    truth = Truth(corners_of([[10, 10, 10, 4, 0], [14, 10, 10, 4, 0], [12, 10, 10, 4, 0]]), np.array([0, 0, 1]), None)
    found = Found(np.array([[11, 10, 10, 4, 0], [12, 10, 10, 4, 0], [90.0, 9, 9, 9, 0]]), None, np.zeros(3, int))
    overlap, index = best_matches(found, truth)
    assert index.tolist() == [0, 0, -1]  # of equal overlaps the first
    np.testing.assert_allclose(overlap, [9 / 11, 8 / 12, 0])


def test_an_overlap_at_the_threshold_is_not_enough():
    truth = Truth(corners_of([[0, 0, 4, 4, 0]]), np.zeros(1, int), np.zeros(1, bool))
    found = Found(np.array([[0, 0, 4, 2.0, 0]]), np.ones(1), np.zeros(1, int))
    at, below = evaluate([found], [truth], 1, [0.5, 0.49])
    assert at[0].average_precision == 0
    assert below[0].average_precision == 1


def test_difficult_objects_count_neither_way():
    truth = Truth(corners_of([[0, 0, 9, 4, 0], [50, 0, 9, 4, 0]]), np.zeros(2, int), np.array([True, False]))
    only_difficult = Truth(truth.corners[:1], truth.labels[:1], truth.difficult[:1])
    found = Found(np.array([[0, 0, 9, 4, 0.0]] * 3), np.array([0.9, 0.8, 0.7]), np.zeros(3, int))
    right = Found(np.array([[50, 0, 9, 4, 0.0]]), np.array([0.1]), np.zeros(1, int))
    (results,) = evaluate([found, right], [only_difficult, truth], 1, [0.5])
    assert results[0].average_precision == 1
    assert results[0].num_truths == 1


def test_nothing_found_and_nothing_there():
    none = Found(np.zeros((0, 5)), np.zeros(0), np.zeros(0, int))
    empty = Truth(np.zeros((0, 4, 2)), np.zeros(0, int), np.zeros(0, bool))
    truth = Truth(corners_of([[0, 0, 9, 4, 0]]), np.zeros(1, int), np.zeros(1, bool))
    (results,) = evaluate([none, none], [truth, empty], 2, [0.5])
    assert [result.average_precision for result in results] == [0, 0]
    assert mean_average_precision(results) == 0
    # A class without objects does not count, whatever is found of it.
    found = Found(np.array([[0, 0, 9, 4, 0.0]] * 2), np.ones(2), np.array([0, 1]))
    (results,) = evaluate([found, none], [truth, empty], 2, [0.5])
    assert mean_average_precision(results) == 1
    with pytest.raises(ValueError, match="of 1 images do not go with objects of 2"):
        evaluate([found], [truth, empty], 2, [0.5])
