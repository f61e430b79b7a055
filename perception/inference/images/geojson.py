"""Detections as GeoJSON: in pixels, and in the coordinate system of the image where it has one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
import shapely.affinity
from shapely.geometry import mapping, shape

from perception.inference.images.box_records import exact_score
from perception.inference.images.results import Detections, MaskCrop
from perception.inference.images.sample import Georeference

# Thousandths of a pixel.
_GRID = 1e-3


def feature_collection(found: Detections, factor: int, classes: Sequence[str]) -> dict[str, Any]:
    """One polygon for each detection, in pixels: x to the right, y down, (0, 0) the outer corner of the first pixel.

    Args:
        found: detections; masks become the edges of their pixels, with their holes.
        factor: original pixels per pixel of the coordinates of `found`.
        classes: names by label.
    """
    polygons = shapely.set_precision(shapely.polygons(found.corners().astype(np.float64)), _GRID, mode="pointwise")
    if found.masks is not None:
        polygons = [_covered(mask, box) for mask, box in zip(found.masks, polygons)]
    features = []
    for polygon, label, score in zip(polygons, found.labels.tolist(), found.scores):
        placed = shapely.affinity.scale(polygon, factor, factor, origin=(0, 0))
        properties = {"category_id": label + 1, "label": classes[label], "score": exact_score(score)}
        features.append({"type": "Feature", "geometry": mapping(placed), "properties": properties})
    return {"type": "FeatureCollection", "features": features}


def referenced(collection: dict[str, Any], georeference: Georeference) -> dict[str, Any]:
    """The same features in an image's coordinate system, named in the way of GeoJSON 2008, which GDAL and QGIS read."""
    a, b, c, d, e, f = georeference.transform
    features = []
    for feature in collection["features"]:
        placed = shapely.affinity.affine_transform(shape(feature["geometry"]), (a, b, d, e, c, f))
        features.append({**feature, "geometry": mapping(placed)})
    if georeference.crs is None:
        return {"type": "FeatureCollection", "features": features}
    crs = {"type": "name", "properties": {"name": georeference.crs}}
    return {"type": "FeatureCollection", "crs": crs, "features": features}


def _covered(mask: MaskCrop, empty: shapely.Geometry) -> shapely.Geometry:
    """What a mask covers, as a valid polygon or several, or what stands for a mask without pixels."""
    inside = mask.inside
    if not inside.any():
        return empty
    changes = np.diff(np.pad(inside, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    row, column = np.nonzero(changes)  # starts and ends of runs, in turn
    top, start, end = mask.top + row[0::2], mask.left + column[0::2], mask.left + column[1::2]
    return shapely.union_all(shapely.box(start, top, end, top + 1)).simplify(0)
