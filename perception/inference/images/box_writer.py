"""Boxes, upright and rotated, and instance masks: JSON, pictures, and polygons as GeoJSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from PIL import Image

from perception.inference.images.box_records import box_entries
from perception.inference.images.drawing import draw
from perception.inference.images.geojson import feature_collection, referenced
from perception.inference.images.image_writer import ImageWriter, Labels
from perception.inference.images.results import Detections
from perception.inference.images.sample import ImageSample
from perception.inference.predicting import SkippedError
from perception.inference.scan import Source
from perception.inference.writing import Files, Record

GEOJSON = "geojson"

_IN_PIXELS, _REFERENCED = ".geojson", ".crs.geojson"


class BoxWriter(ImageWriter):
    """Writes :class:`perception.inference.images.results.Detections`."""

    key = "detections"

    def takes(self, found: Any) -> bool:
        return isinstance(found, Detections)

    def files(self, record: Record) -> Iterable[str]:
        yield from super().files(record)
        for suffix in _suffixes(record):
            yield f"{GEOJSON}/{record['file_name']}{suffix}"

    def leftovers(self, record: Record) -> Iterable[str]:
        yield from super().files(record)
        for suffix in (_IN_PIXELS, _REFERENCED):
            yield f"{GEOJSON}/{record['file_name']}{suffix}"

    def write_results(self, files: Files, source: Source, sample: ImageSample, found: Detections, meta: Labels) -> Any:
        if found.masks and sample.width * sample.height >= 2**32:
            raise SkippedError("COCO's run lengths end at 2^32 pixels, so the masks cannot be written")
        collections = {}
        # Rotated boxes have polygons, and whatever was found in tiles or lies on a map.
        if found.rotated or sample.tiles is not None or sample.georeference is not None:
            collections[_IN_PIXELS] = feature_collection(found, sample.factor, meta.classes)
            if sample.georeference is not None:
                collections[_REFERENCED] = referenced(collections[_IN_PIXELS], sample.georeference)
        for suffix in (_IN_PIXELS, _REFERENCED):
            name = f"{GEOJSON}/{source.name}{suffix}"
            if suffix in collections:
                with files.replacing(name) as file:
                    file.write(json.dumps(collections[suffix]).encode())
            else:  # an earlier run's, of another image of this name
                files.remove(name)
        return box_entries(found, sample.width, sample.height, sample.factor, meta.classes)

    def draw(self, sample: ImageSample, found: Detections, meta: Labels) -> Image.Image:
        if sample.reduction != sample.factor:
            found = found.scaled(sample.factor / sample.reduction)
        return draw(sample.pixels, found, meta.classes, meta.palette)

    def coco_annotations(self, record: Record, image_id: int, first_id: int) -> list[dict[str, Any]]:
        keys = ("category_id", "bbox", "score", "rbox", "segmentation")
        return [
            {"id": first_id + index, "image_id": image_id} | {key: entry[key] for key in keys if key in entry}
            for index, entry in enumerate(record["detections"])
        ]


def _suffixes(record: Record) -> tuple[str, ...]:
    """Which files with polygons have to be there."""
    if "georeference" in record:
        return _IN_PIXELS, _REFERENCED
    return (_IN_PIXELS,) if "tiles" in record or any("rbox" in entry for entry in record["detections"]) else ()
