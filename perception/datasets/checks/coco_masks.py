"""Rules for segmentations of objects in COCO's format: polygons and run lengths."""

from __future__ import annotations

import numpy as np

from perception.datasets.masks import valid_polygons

from .coco_lists import Images, Named
from .report import Findings, some

_COMPARED = 2000
"""So many polygons are compared with their boxes."""


def look_at_segmentations(entries, image, images: Images, boxes, findings: Findings, named: Named) -> int:
    """Polygons and run lengths; returns how many objects have none."""
    bare, odd, short, lost, sizes, apart = [], [], [], [], [], []
    for place, entry in enumerate(entries):
        given = entry.get("segmentation")
        if not given:
            bare.append(place)
        elif isinstance(given, list):
            for polygon in given:
                if not isinstance(polygon, list):
                    odd.append(place)
                    break
                if len(polygon) < 6 or len(polygon) % 2:
                    (short if valid_polygons(given) else lost).append(place)
                    break
            else:
                if place < _COMPARED and _apart(given, boxes[place]):
                    apart.append(place)
        elif isinstance(given, dict) and isinstance(given.get("size"), list) and "counts" in given:
            where = image[place]
            if where >= 0 and given["size"] != [images.heights[where], images.widths[where]]:
                sizes.append(place)
        else:
            odd.append(place)
    for places, what, advice, say in (
        (odd, "have a segmentation that is neither a list of polygons nor {size, counts}",
         "polygons are lists in a list: [[x1, y1, x2, y2, ...]]", findings.error),
        (short, "have polygons of fewer than three points or of an odd number of coordinates",
         "these polygons are left out of masks", findings.warn),
        (lost, "have no polygon of three points and more",
         "training and evaluation of masks leave these objects out", findings.warn),
        (sizes, "have run lengths for another size than their image's [height, width]", "", findings.error),
        (apart, f"of the first {_COMPARED} have polygons of another extent than their bbox",
         "are both in pixels of the same image?", findings.warn),
    ):  # fmt: skip
        if places:
            say(f"{len(places)} of {len(entries)} objects {what}: {some(named(places))}", advice)
    return len(bare)


def _apart(polygons: list, box: np.ndarray) -> bool:
    """Whether the polygons' extent differs from the box by more than slips of rounding."""
    try:
        points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in polygons]).astype(float)
    except (TypeError, ValueError):
        return True
    low, high = points.min(0), points.max(0)
    slack = 3 + 0.1 * max(box[2:].max(), 1)
    return bool((np.abs(low - box[:2]) > slack).any() or (np.abs(high - box[:2] - box[2:]) > slack).any())
