"""Images on a run's page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from perception.datasets.palette import Colour
from perception.engine.page.pictures import index_png
from perception.inference.images.image_writer import Labels
from perception.inference.images.results import UNLABELLED, LabelMap, Segments
from perception.inference.images.sample import ImageSample
from perception.inference.scan import Source
from perception.inference.showing import Exhibit, Showing
from perception.inference.writing import Record


class ImagesShowing(Showing):
    """Boxes, masks and polygons come from the line; maps are kept reduced, so that a page may colour them by class."""

    named_by_files = True

    def exhibit(self, source: Source, sample: ImageSample, found: Any, meta: Labels) -> Exhibit:
        scene = None
        if isinstance(found, LabelMap):
            scene = {"index": index_png(found.labels, UNLABELLED + 1)}
        elif isinstance(found, Segments):
            numbers = [None, *found.labels.tolist()]
            scene = {"index": index_png(found.ids, len(numbers)), "numbers": numbers}
        return Exhibit(sample.pixels, scene)

    def classes(self, meta: Labels) -> tuple[Sequence[str], Sequence[Colour]]:
        return meta.classes, meta.palette

    def objects(self, record: Record) -> Iterable[tuple[str, float | None]]:
        for entry in (*record.get("detections", ()), *record.get("segments", ())):
            yield entry["label"], entry.get("score")

    def shares(self, record: Record) -> Mapping[str, float]:
        pixels = record["width"] * record["height"]
        return {name: count / pixels for name, count in record.get("pixels", {}).items()}
