"""Success and Precision: recorded sequences, check values, and a metric over tracklets of two categories."""

from pathlib import Path

import numpy as np
import pytest
import torch

from perception.evaluation.tracking3d import SuccessPrecision, compare, precision, success

FILE = Path(__file__).parents[1] / "data" / "reference" / "adaformer" / "sequences.pt"


@pytest.fixture(scope="module")
def sequences():
    return torch.load(FILE, weights_only=True)


def test_recorded_sequences(sequences):
    overlaps, distances = [], []
    for sequence in sequences["sequences"]:
        overlap, distance = compare(sequence["predicted"], sequence["truth"])
        np.testing.assert_allclose(overlap, sequence["iou3d"], atol=1e-6)
        np.testing.assert_allclose(distance, sequence["distance"], atol=1e-6)
        assert success(overlap) == pytest.approx(sequence["success"], abs=1e-4)
        assert precision(distance) == pytest.approx(sequence["precision"], abs=1e-4)
        overlaps.append(overlap)
        distances.append(distance)
    assert success(np.concatenate(overlaps)) == pytest.approx(sequences["overall"]["success"], abs=1e-4)
    assert precision(np.concatenate(distances)) == pytest.approx(sequences["overall"]["precision"], abs=1e-4)


@pytest.mark.parametrize(
    ("overlaps", "expected"), [([1], 100), ([0], 2.5), ([0.5, 0.5], 52.5), ([0.05, 0.1, 0.97], 39.1667)]
)
def test_success_by_hand(overlaps, expected):
    assert success(np.array(overlaps)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("distances", "expected"), [([0], 100), ([2.0], 2.5), ([2.01], 0), ([0.1, 0.25, 1, 3], 59.375)]
)
def test_precision_by_hand(distances, expected):
    assert precision(np.array(distances)) == pytest.approx(expected, abs=1e-4)


def test_no_frame_scores_nothing():
    assert success(np.array([])) == precision(np.array([])) == 0


def boxes(count, speed=0.0):
    rows = torch.tensor([[0.0, 0, 0, 4, 2, 1.5, 0.4]], dtype=torch.float64).repeat(count, 1)
    rows[:, 0] = torch.arange(count) * speed
    return rows


def test_perfect_tracking_and_a_box_that_stays():
    truth = boxes(30, 0.2)
    overlap, distance = compare(truth, truth)
    assert (success(overlap), precision(distance)) == (100, 100)
    overlap, distance = compare(truth[:1].repeat(30, 1), truth)
    assert overlap[0] == pytest.approx(1)  # the first frame counts
    assert (np.diff(overlap) <= 1e-9).all()
    assert success(overlap) < 40


def test_metric_pools_frames_and_names_categories():
    metric = SuccessPrecision()
    tracklets = [("Car", boxes(3), boxes(3)), ("Pedestrian", boxes(1) + 100, boxes(1))]
    metric.process({}, [dict(category=name, predicted=a, truth=b) for name, a, b in tracklets])
    numbers = metric.compute_metrics(metric.results)
    assert numbers["Car/success"] == numbers["Car/precision"] == 100
    assert numbers["Pedestrian/success"] == pytest.approx(2.5)
    assert numbers["Pedestrian/precision"] == 0
    assert numbers["success"] == pytest.approx((3 * 100 + 2.5) / 4)
    alone = SuccessPrecision(per_category=False)
    alone.process({}, [dict(category="Car", predicted=boxes(3), truth=boxes(3))])
    assert set(alone.compute_metrics(alone.results)) == {"success", "precision"}
