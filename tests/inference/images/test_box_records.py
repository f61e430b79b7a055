"""Detections as JSON."""

import numpy as np
from pycocotools import mask as coco_mask

from perception.inference.images.box_records import box_entries
from perception.inference.images.box_writer import BoxWriter
from perception.inference.images.results import Detections, crop_masks

CLASSES = ("ship", "plane")


def _detections(boxes, masks=None):
    count = len(boxes)
    return Detections(
        np.asarray(boxes, np.float32).reshape(count, 4),
        np.linspace(0.9, 0.5, count, dtype=np.float32),
        np.arange(count) % 2,
        None if masks is None else crop_masks(masks),
    )


def test_a_record_holds_coco_boxes_of_the_original():
    assert box_entries(_detections([[1, 2, 11.5, 22.25], [0, 0, 640, 480]]), 640, 480, 1, CLASSES) == [
        {"category_id": 1, "label": "ship", "bbox": [1.0, 2.0, 10.5, 20.25], "score": 0.9},
        {"category_id": 2, "label": "plane", "bbox": [0.0, 0.0, 640.0, 480.0], "score": 0.5},
    ]


def test_boxes_of_a_reduced_image_are_scaled_and_stay_inside():
    # 603 x 401 was decoded at a quarter, as 151 x 101 pixels; the last of them reach over the edge.
    entries = box_entries(_detections([[10, 20, 30, 40], [100, 50, 151, 101]]), 603, 401, 4, CLASSES)
    assert [entry["bbox"] for entry in entries] == [[40, 80, 80, 80], [400, 200, 203, 201]]


def test_masks_become_run_lengths_of_the_original_size():
    masks = np.zeros((1, 3, 4), bool)
    masks[0, 1, 1:3] = True
    full = box_entries(_detections([[1, 1, 3, 2]], masks), 4, 3, 1, CLASSES)[0]["segmentation"]
    assert full["size"] == [3, 4]
    assert np.array_equal(coco_mask.decode(full), masks[0])
    # The same mask found in an image that was decoded at half its 7 x 5 pixels.
    halved = box_entries(_detections([[1, 1, 3, 2]], masks), 7, 5, 2, CLASSES)[0]["segmentation"]
    expected = np.zeros((5, 7), bool)
    expected[2:4, 2:6] = True
    assert np.array_equal(coco_mask.decode(halved), expected)


def test_annotations_are_numbered_and_carry_what_coco_tools_need():
    record = {"detections": box_entries(_detections([[1, 2, 3, 4], [0, 0, 9, 9]]), 9, 9, 1, CLASSES)}
    first, second = BoxWriter(["a"], pictures=False).coco_annotations(record, image_id=7, first_id=21)
    assert first == {"id": 21, "image_id": 7, "category_id": 1, "bbox": [1, 2, 2, 2], "score": 0.9}
    assert (second["id"], second["image_id"]) == (22, 7)
