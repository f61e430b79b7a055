"""Semantic segmentation: the class of each pixel, as PNG with a palette, and as GeoTIFF where it is known where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from perception.inference.images.drawing import draw_label_map
from perception.inference.images.image_writer import ImageWriter, Labels
from perception.inference.images.label_png import LabelPngWriter
from perception.inference.images.label_tiff import LabelTiffWriter
from perception.inference.images.results import LabelMap
from perception.inference.images.sample import ImageSample
from perception.inference.names import derived_names
from perception.inference.scan import Source
from perception.inference.writing import Files, Record

LABEL_MAPS = "labels"


class LabelMapWriter(ImageWriter):
    """Writes :class:`perception.inference.images.results.LabelMap`.

    A line holds `"pixels": {class: number}`.

    Args:
        names: of all images.
        pictures: draw pictures.
    """

    key = "pixels"

    def __init__(self, names: Sequence[str], pictures: bool) -> None:
        super().__init__(names, pictures)
        self._maps = {name: f"{LABEL_MAPS}/{path}" for name, path in label_map_names(names).items()}
        placed = derived_names(names, {".tif", ".tiff"}, ".tif")
        self._placed_maps = {name: f"{LABEL_MAPS}/{path}" for name, path in placed.items()}

    def takes(self, found: Any) -> bool:
        return isinstance(found, LabelMap)

    def files(self, record: Record) -> Iterable[str]:
        yield from super().files(record)
        yield self._maps[record["file_name"]]
        if _is_placed(record):
            yield self._placed_maps[record["file_name"]]

    def leftovers(self, record: Record) -> Iterable[str]:
        yield from super().files(record)
        yield self._maps[record["file_name"]]
        yield self._placed_maps[record["file_name"]]

    def write_results(self, files: Files, source: Source, sample: ImageSample, found: LabelMap, meta: Labels) -> Any:
        counts = np.zeros(256, np.int64)
        size, place = (sample.width, sample.height), sample.georeference or sample.ground_control
        with ExitStack() as opened:
            file = opened.enter_context(files.replacing(self._maps[source.name]))
            writers: list[Any] = [LabelPngWriter(file, *size, meta.palette)]
            if place is not None:
                # GDAL writes to the name of the file that is being replaced.
                target = Path(opened.enter_context(files.replacing(self._placed_maps[source.name])).name)
                writers.append(opened.enter_context(LabelTiffWriter(target, *size, meta.palette, place)))
            for rows in found.rows(*size, sample.factor):
                for writer in writers:
                    writer.write(rows)
                counts += np.bincount(rows.ravel(), minlength=256)
            writers[0].finish()
        if place is None:  # an earlier run's, of another image of this name
            files.remove(self._placed_maps[source.name])
        return {name: int(count) for name, count in zip(meta.classes, counts) if count}

    def draw(self, sample: ImageSample, found: LabelMap, meta: Labels) -> Image.Image:
        return draw_label_map(sample.pixels, found, meta.classes, meta.palette)

    def coco_image(self, record: Record) -> dict[str, Any]:
        name = record["file_name"]
        image = {"pixels": record["pixels"], **super().coco_image(record), "label_map": self._maps[name]}
        return {**image, "label_map_tiff": self._placed_maps[name]} if _is_placed(record) else image

    def coco_annotations(self, record: Record, image_id: int, first_id: int) -> list[dict[str, Any]]:
        return []


def _is_placed(record: Record) -> bool:
    return "georeference" in record or "ground_control" in record


def label_map_names(names: Sequence[str]) -> dict[str, str]:
    """Where each image's label map goes below `labels/`."""
    return derived_names(names, {".png"}, ".png")
