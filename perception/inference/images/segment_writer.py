"""Panoptic segments, as COCO defines them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import find_objects

from perception.inference.images.drawing import draw_segments
from perception.inference.images.image_writer import ImageWriter, Labels
from perception.inference.images.label_map_writer import label_map_names
from perception.inference.images.results import Segments, at_size
from perception.inference.images.sample import ImageSample
from perception.inference.scan import Source
from perception.inference.writing import Files, Record

PANOPTIC = "panoptic"


class SegmentWriter(ImageWriter):
    """Writes :class:`perception.inference.images.results.Segments`.

    A line holds `"segments": [{"id", "category_id", "label", "area", "bbox"}]`, and `panoptic/` an image in which the
    id is red + 256 green + 65536 blue.

    Args:
        names: of all images.
        pictures: draw pictures.
    """

    key = "segments"

    def __init__(self, names: Sequence[str], pictures: bool) -> None:
        super().__init__(names, pictures)
        self._names = label_map_names(names)

    def takes(self, found: Any) -> bool:
        return isinstance(found, Segments)

    def files(self, record: Record) -> Iterable[str]:
        yield from super().files(record)
        yield f"{PANOPTIC}/{self._names[record['file_name']]}"

    def write_results(self, files: Files, source: Source, sample: ImageSample, found: Segments, meta: Labels) -> Any:
        ids = at_size(found.ids, sample.width, sample.height, sample.factor)
        bytes_of_ids = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)
        with files.replacing(f"{PANOPTIC}/{self._names[source.name]}") as file:
            Image.fromarray(bytes_of_ids).save(file, "PNG")
        return segment_entries(ids, found.labels, meta.classes)

    def draw(self, sample: ImageSample, found: Segments, meta: Labels) -> Image.Image:
        return draw_segments(sample.pixels, found, meta.classes, meta.palette)

    def coco_annotations(self, record: Record, image_id: int, first_id: int) -> list[dict[str, Any]]:
        name = self._names[record["file_name"]]
        return [{"image_id": image_id, "file_name": name, "segments_info": record["segments"]}]


def segment_entries(ids: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """COCO's description of each segment.

    Args:
        ids: int32 (height, width), 0 where there is no segment.
        labels: of segment 1, 2, ...
        classes: names by label.
    """
    entries = []
    for number, where in enumerate(find_objects(ids, len(labels))):
        rows, columns = where
        label = int(labels[number])
        entry = {"id": number + 1, "category_id": label + 1, "label": classes[label]}
        entry["area"] = int((ids[where] == number + 1).sum())
        entry["bbox"] = [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]
        entries.append(entry)
    return entries
