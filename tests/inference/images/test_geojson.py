"""Detections as polygons."""

import numpy as np
import shapely.affinity
import shapely.geometry

from perception.inference.images.geojson import feature_collection, referenced
from perception.inference.images.results import Detections, MaskCrop
from perception.inference.images.sample import Georeference

CLASSES = ("ship", "plane")


def _detections(boxes, masks=None):
    boxes = np.asarray(boxes, np.float32)
    scores = np.linspace(0.9, 0.5, len(boxes), dtype=np.float32)
    return Detections(boxes, scores, np.arange(len(boxes)) % 2, masks)


def _shapes(collection):
    return [shapely.geometry.shape(feature["geometry"]) for feature in collection["features"]]


def test_boxes():
    collection = feature_collection(_detections([[1, 2, 11, 6], [0, 0, 3, 3]]), 2, CLASSES)
    first, second = _shapes(collection)
    assert first.equals(shapely.box(2, 4, 22, 12))
    assert second.equals(shapely.box(0, 0, 6, 6))
    assert collection["features"][0]["properties"] == {"category_id": 1, "label": "ship", "score": 0.9}


def test_rotated_boxes():
    (shape,) = _shapes(feature_collection(_detections([[50, 40, 20, 8, np.pi / 4]]), 1, CLASSES))
    assert abs(shape.area - 160) < 0.1
    assert abs(shape.minimum_rotated_rectangle.area - 160) < 0.1
    # Clockwise on screen: the long side goes down to the right.
    assert shape.contains(shapely.Point(56, 46))
    assert not shape.contains(shapely.Point(56, 34))


def test_masks_become_what_they_cover():
    inside = np.zeros((12, 20), bool)
    inside[1:11, 2:8] = True
    inside[4:6, 12:19] = True
    inside[5:8, 4:6] = False
    boxes = [[30, 40, 50, 52]] * 2
    masks = [MaskCrop(30, 40, inside), MaskCrop(30, 40, inside[:, :10])]
    two, one = _shapes(feature_collection(_detections(boxes, masks), 2, CLASSES))
    ring = shapely.box(32, 41, 38, 51) - shapely.box(34, 45, 36, 48)
    assert two.equals(shapely.affinity.scale(ring | shapely.box(42, 44, 49, 46), 2, 2, origin=(0, 0)))
    assert one.geom_type == "Polygon"
    assert len(one.interiors) == 1
    assert len(one.exterior.coords) == 5


def test_ragged_masks_are_valid_polygons():
    generator = np.random.default_rng(0)
    for _ in range(20):
        inside = generator.random((12, 12)) < 0.5
        (polygon,) = _shapes(feature_collection(_detections([[0, 0, 12, 12]], [MaskCrop(5, 7, inside)]), 1, CLASSES))
        assert polygon.is_valid
        assert polygon.area == inside.sum()


def test_a_mask_of_no_pixels_is_its_box():
    (shape,) = _shapes(
        feature_collection(_detections([[1, 2, 5, 6]], [MaskCrop(0, 0, np.zeros((0, 0), bool))]), 1, CLASSES)
    )
    assert shape.equals(shapely.box(1, 2, 5, 6))


def test_referenced_polygons():
    inside = np.ones((2, 2), bool)
    collection = feature_collection(_detections([[0, 0, 2, 4]], None), 1, CLASSES)
    placed = referenced(collection, Georeference("urn:ogc:def:crs:EPSG::4326", (0.1, 0.0, 9.0, 0.0, -0.2, 50.0)))
    assert _shapes(placed)[0].equals_exact(shapely.box(9, 49.2, 9.2, 50), 1e-12, normalize=True)
    assert _shapes(collection)[0].equals(shapely.box(0, 0, 2, 4))
    mask = np.pad(inside, ((0, 7), (0, 7))) | np.pad(inside, ((7, 0), (7, 0)))
    several = feature_collection(_detections([[0, 0, 9, 9]], [MaskCrop(0, 0, mask)]), 1, CLASSES)
    moved = referenced(several, Georeference("x", (1.0, 0.0, 100.0, 0.0, 1.0, 200.0)))
    assert _shapes(moved)[0].bounds == (100, 200, 109, 209)
