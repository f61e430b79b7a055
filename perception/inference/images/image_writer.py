"""What writers of all kinds of results in images share: their record's head, and the picture."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image

from perception.datasets.palette import Colour
from perception.inference.images.sample import ImageSample
from perception.inference.names import derived_names
from perception.inference.scan import Source
from perception.inference.writing import Files, Record, Writer

PICTURES = "images"

# What a picture is saved as when the image's own name says so; all others get `.jpg` added to their name.
_PICTURE_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
# 4:4:4, because halved colour resolution smears thin lines and small text.
_ENCODING: dict[str, dict[str, Any]] = {"JPEG": {"quality": 92, "subsampling": 0}, "PNG": {"compress_level": 1}}


@dataclass(frozen=True)
class Labels:
    """Names and colours of a model's classes, by label."""

    classes: tuple[str, ...]
    palette: list[Colour]


class ImageWriter(Writer):
    """A line is `{"file_name", "file_size", "width", "height"}`, the results under `key`, and what else is known.

    Args:
        names: of all images.
        pictures: draw pictures.
    """

    key: str
    """What a line holds the results under."""

    def __init__(self, names: Sequence[str], pictures: bool) -> None:
        self._pictures = picture_names(names) if pictures else {}

    def wrote(self, record: Record) -> bool:
        return self.key in record

    def files(self, record: Record) -> Iterable[str]:
        if self._pictures:
            yield f"{PICTURES}/{self._pictures[record['file_name']]}"

    def write(self, files: Files, source: Source, sample: ImageSample, found: Any, meta: Labels) -> Record:
        record: Record = {"width": sample.width, "height": sample.height}
        record[self.key] = self.write_results(files, source, sample, found, meta)
        if sample.tiles is not None:
            record["tiles"] = sample.tiles
        if sample.levels is not None:
            record["levels"] = list(sample.levels)
        if sample.georeference is not None:
            record["georeference"] = asdict(sample.georeference)
        if sample.ground_control is not None:
            record["ground_control"] = asdict(sample.ground_control)
        if sample.reading is not None:
            record["reading"] = sample.reading
        if self._pictures:
            target = f"{PICTURES}/{self._pictures[source.name]}"
            kind = _PICTURE_FORMATS[_suffix(target)]
            picture = self.draw(sample, found, meta)
            with files.replacing(target) as file:
                picture.save(file, kind, **_ENCODING[kind])
        return record

    @abstractmethod
    def write_results(self, files: Files, source: Source, sample: ImageSample, found: Any, meta: Labels) -> Any:
        """Writes the files about an image, other than its picture; returns what its line holds under `key`."""

    @abstractmethod
    def draw(self, sample: ImageSample, found: Any, meta: Labels) -> Image.Image:
        """What was found, on the image; called after `write_results`."""

    @abstractmethod
    def coco_annotations(self, record: Record, image_id: int, first_id: int) -> list[dict[str, Any]]:
        """A line's results as annotations; those that have ids are numbered from `first_id` on."""

    def coco_image(self, record: Record) -> dict[str, Any]:
        """What COCO's entry of an image holds besides its name and size."""
        return {"georeference": record["georeference"]} if "georeference" in record else {}


def picture_names(names: Sequence[str]) -> dict[str, str]:
    """Where each image's picture goes below `images/`."""
    return derived_names(names, _PICTURE_FORMATS, ".jpg")


def _suffix(name: str) -> str:
    return name[name.rindex(".") :].lower()
