"""Detections as GeoJSON: in pixels, and in the coordinate system of the image where it has one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from perception.inference.raster import Georeference
from perception.inference.results import Detections, MaskCrop

_DIGITS = 3


def feature_collection(found: Detections, factor: int, classes: Sequence[str]) -> dict[str, Any]:
    """One polygon for each detection, in pixels: x to the right, y down, (0, 0) the outer corner of the first pixel.

    Args:
        found: detections; masks become their outlines, right to a quarter of a pixel and without holes.
        factor: original pixels per pixel of the coordinates of `found`.
        classes: names by label.
    """
    corners = found.corners()
    features = []
    for index, (label, score) in enumerate(zip(found.labels.tolist(), found.scores.tolist())):
        rings = _outlines(found.masks[index]) if found.masks is not None else []
        rings = [np.round((ring * factor).astype(np.float64), _DIGITS).tolist() for ring in rings or [corners[index]]]
        rings = [[*ring, ring[0]] for ring in rings]
        geometry = {"type": "MultiPolygon", "coordinates": [[ring] for ring in rings]}
        if len(rings) == 1:
            geometry = {"type": "Polygon", "coordinates": rings}
        properties = {"category_id": label + 1, "label": classes[label], "score": round(score, 6)}
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    return {"type": "FeatureCollection", "features": features}


def referenced(collection: dict[str, Any], georeference: Georeference) -> dict[str, Any]:
    """The same features in an image's coordinate system, named in the way of GeoJSON 2008, which GDAL and QGIS read."""
    a, b, c, d, e, f = georeference.transform

    def placed(part: list) -> list:
        if isinstance(part[0], list):
            return [placed(inner) for inner in part]
        x, y = part
        return [a * x + b * y + c, d * x + e * y + f]

    features = [
        {**feature, "geometry": {**geometry, "coordinates": placed(geometry["coordinates"])}}
        for feature in collection["features"]
        for geometry in [feature["geometry"]]
    ]
    crs = {"type": "name", "properties": {"name": georeference.crs}}
    return {"type": "FeatureCollection", "crs": crs, "features": features}


def _outlines(mask: MaskCrop) -> list[np.ndarray]:
    """Outer rings of a mask, (points, 2) in pixels."""
    # Contours run through the centres of pixels: those of quarter pixels are close to the edge.
    fine = mask.inside.repeat(2, 0).repeat(2, 1).astype(np.uint8)
    contours = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0] if fine.size else ()
    return [(contour[:, 0] + 0.5) / 2 + (mask.left, mask.top) for contour in contours]
