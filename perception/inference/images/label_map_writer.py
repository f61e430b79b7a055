"""Semantic segmentation: the class of each pixel, as PNG with a palette."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from perception.inference.images.drawing import draw_label_map
from perception.inference.images.image_writer import ImageWriter, Labels
from perception.inference.images.label_png import LabelPngWriter
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

    def takes(self, found: Any) -> bool:
        return isinstance(found, LabelMap)

    def files(self, record: Record) -> Iterable[str]:
        yield from super().files(record)
        yield self._maps[record["file_name"]]

    def write_results(self, files: Files, source: Source, sample: ImageSample, found: LabelMap, meta: Labels) -> Any:
        counts = np.zeros(256, np.int64)
        with files.replacing(self._maps[source.name]) as file:
            writer = LabelPngWriter(file, sample.width, sample.height, meta.palette)
            for rows in found.rows(sample.width, sample.height, sample.factor):
                writer.write(rows)
                counts += np.bincount(rows.ravel(), minlength=256)
            writer.finish()
        return {name: int(count) for name, count in zip(meta.classes, counts) if count}

    def draw(self, sample: ImageSample, found: LabelMap, meta: Labels) -> Image.Image:
        return draw_label_map(sample.pixels, found, meta.classes, meta.palette)

    def coco_image(self, record: Record) -> dict[str, Any]:
        return {"pixels": record["pixels"], **super().coco_image(record), "label_map": self._maps[record["file_name"]]}

    def coco_annotations(self, record: Record, image_id: int, first_id: int) -> list[dict[str, Any]]:
        return []


def label_map_names(names: Sequence[str]) -> dict[str, str]:
    """Where each image's label map goes below `labels/`."""
    return derived_names(names, {".png"}, ".png")
