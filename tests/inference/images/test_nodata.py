"""Nothing is found where an image has no data."""

import numpy as np
import pytest

from perception.inference.images.nodata import without_nodata
from perception.inference.images.results import Detections, LabelMap, Segments, crop_masks

# The right half of an image of 100 x 60 has no data.
VALID = np.ones((60, 100), bool)
VALID[:, 50:] = False


def _detections(boxes, masks=None):
    boxes = np.asarray(boxes, np.float32)
    return Detections(boxes, np.linspace(0.9, 0.5, len(boxes), dtype=np.float32), np.arange(len(boxes)), masks)


@pytest.mark.parametrize("valid", [None, np.ones((60, 100), bool)])
def test_where_all_is_data_nothing_changes(valid):
    found = _detections([[60, 5, 80, 20]])
    assert without_nodata(found, valid) is found


def test_label_maps_have_no_label_there():
    labels = np.arange(6000, dtype=np.uint8).reshape(60, 100) % 7
    result = without_nodata(LabelMap(labels), VALID).labels
    assert result.dtype == np.uint8
    assert (result[:, 50:] == 255).all()
    assert np.array_equal(result[:, :50], labels[:, :50])


def test_boxes_that_lie_there_for_the_most_part_go():
    found = _detections(
        [[10, 5, 30, 20], [60, 5, 80, 20], [44, 5, 54, 20], [47, 5, 57, 20], [-9, -9, 5, 5], [90, 50, 120, 90]]
    )
    left = without_nodata(found, VALID)
    assert left.labels.tolist() == [0, 2, 4]
    assert np.array_equal(left.boxes, found.boxes[[0, 2, 4]])
    assert np.array_equal(left.scores, found.scores[[0, 2, 4]])


def test_rotated_boxes_count_as_they_lie():
    """Their upright bounds reach as far; a narrow one along the border is cut in the middle."""
    boxes = [
        [45, 30, 60, 4, np.pi / 2 * 0.99],
        [56, 30, 60, 4, np.pi / 2 * 0.99],
        [40, 30, 40, 10, 0.5],
        [60, 30, 40, 10, 0.5],
    ]
    assert without_nodata(_detections(boxes), VALID).labels.tolist() == [0, 2]


def test_masks_count_by_their_pixels():
    inside = np.zeros((2, 60, 100), bool)
    inside[0, 10:20, 20:49], inside[0, 15, 20:90] = True, True
    inside[1, 30:40, 52:90], inside[1, 35, 5:90] = True, True
    masks = crop_masks(inside)
    left = without_nodata(_detections([mask.bounds() for mask in masks], masks), VALID)
    assert left.labels.tolist() == [0]
    assert left.masks == [masks[0]]


def test_segments_lose_their_pixels_and_are_numbered_anew():
    ids = np.zeros((60, 100), np.int32)
    ids[:20, 60:80], ids[:20, 40:60], ids[30:, :30] = 1, 2, 3
    left = without_nodata(Segments(ids, np.array([5, 6, 7])), VALID)
    assert left.labels.tolist() == [6, 7]
    assert np.array_equal(np.argwhere(left.ids == 1).max(0), [19, 49])
    assert (left.ids[30:, :30] == 2).all()
    assert (left.ids[:, 50:] == 0).all()
