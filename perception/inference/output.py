"""The folder that a run writes: what it holds, what of it can be reused, and when it must not be touched.

`run.json` what the run was started with; `predictions.jsonl` one line for each image, as it goes; `images/` the
pictures, `labels/` the label maps, `panoptic/` the segments and `geojson/` the polygons, in the folder tree of the
input; at the end
`predictions.json` (COCO), `skipped.json`, and `dota/` with the detections of each class of rotated boxes.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from perception.engine.atomic import replacing
from perception.engine.errors import UserError
from perception.evaluation.task1 import task1_line, task1_name
from perception.inference.drawing import Colour
from perception.inference.journal import Journal
from perception.inference.label_png import LabelPngWriter
from perception.inference.results import coco_annotations
from perception.inference.scan import Scan, Source

SETTINGS, JOURNAL, RESULTS, SKIPPED, PICTURES = (
    "run.json",
    "predictions.jsonl",
    "predictions.json",
    "skipped.json",
    "images",
)

GEOJSON_SUFFIXES = (".geojson", ".crs.geojson")
LABEL_MAPS, PANOPTIC, GEOJSON, DOTA = "labels", "panoptic", "geojson", "dota"

# A config or checkpoint is what it contains, wherever it lies.
_NOT_COMPARED = ("config", "checkpoint")
_DESCRIBED = {"config_sha256": "config", "checkpoint_sha256": "checkpoint"}

# What a picture is saved as when the image's own name says so; all others get `.jpg` added to their name.
_PICTURE_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
# 4:4:4, because halved colour resolution smears thin lines and small text.
_ENCODING: dict[str, dict[str, Any]] = {"JPEG": {"quality": 92, "subsampling": 0}, "PNG": {"compress_level": 1}}


class OutputFolder:
    """Opens OUT for one run, and no other process's at the same time.

    Args:
        path: the folder; made when it does not exist.
        settings: what decides the results, as JSON values; a run with others is not continued.
        scan: the images of this run.
        pictures: whether pictures are drawn.
        overwrite: start afresh, whatever was there.

    Raises:
        UserError: OUT holds a run with other settings, or another process is writing to it.
    """

    def __init__(self, path: str | Path, settings: dict[str, Any], scan: Scan, pictures: bool, overwrite: bool) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.path)
        self._scan = scan
        names = [source.name for source in scan.sources]
        self._pictures = picture_names(names) if pictures else {}
        self._label_maps = label_map_names(names)
        try:
            if overwrite:
                self._clear()
            self._check(settings)
            _write_json(self.path / SETTINGS, settings)
            self._journal = self._take_over()
        except BaseException:
            os.close(self._lock)
            raise

    def has(self, source: Source) -> bool:
        """Whether an image is done: its line is written, and its picture where one is wanted."""
        return source.name in self._journal

    @contextmanager
    def label_map(self, name: str, width: int, height: int, palette: Sequence[Colour]) -> Iterator[LabelPngWriter]:
        """Opens an image's label map for its rows; it gets its name when all are there."""
        with replacing(self._target(LABEL_MAPS, self._label_maps[name])) as file:
            writer = LabelPngWriter(file, width, height, palette)
            yield writer
            writer.finish()

    def panoptic(self, name: str, ids: np.ndarray) -> None:
        """Writes an image's segments as COCO does: the id, int32 (height, width), is red + 256 green + 65536 blue."""
        bytes_of_ids = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)
        with replacing(self._target(PANOPTIC, self._label_maps[name])) as file:
            Image.fromarray(bytes_of_ids).save(file, "PNG")

    def add(
        self, record: dict[str, Any], picture: Image.Image | None, geojson: dict[str, dict[str, Any]] | None = None
    ) -> None:
        """Writes one image's files and then its line, so that a line says that the files are there.

        Args:
            record: the line.
            picture: the image with what was found in it.
            geojson: polygons, by what follows the image's name in the file's name.
        """
        name = record["file_name"]
        geojson = geojson or {}
        if picture is not None:
            target = self._target(PICTURES, self._pictures[name])
            kind = _PICTURE_FORMATS[target.suffix.lower()]
            with replacing(target) as file:
                picture.save(file, kind, **_ENCODING[kind])
        for suffix in GEOJSON_SUFFIXES:
            if suffix in geojson:
                with replacing(self._target(GEOJSON, name + suffix)) as file:
                    file.write(json.dumps(geojson[suffix]).encode())
            else:  # an earlier run's, of another image of this name
                (self.path / GEOJSON / (name + suffix)).unlink(missing_ok=True)
        self._journal.append(record)

    def finish(self, classes: Sequence[str], skipped: dict[str, str]) -> None:
        """Writes the files that sum the run up; the same images give the same bytes, in however many runs."""
        names = [source.name for source in self._scan.sources]
        self._journal.arrange(names)
        with replacing(self.path / RESULTS) as file:
            for piece in self._coco(names, classes):
                file.write(piece.encode())
        self._write_dota(names, classes)
        _write_json(
            self.path / SKIPPED,
            {
                "skipped": [{"file_name": name, "reason": skipped[name]} for name in sorted(skipped)],
                "ignored": self._scan.ignored,
            },
        )

    def close(self) -> None:
        self._journal.close()
        os.close(self._lock)

    def _coco(self, names: Sequence[str], classes: Sequence[str]) -> Iterable[str]:
        """The text of predictions.json, piece by piece: a run's results need not fit into memory."""
        yield '{"images": ['
        for index, record in enumerate(self._journal.records(names)):
            keys = ("file_name", "width", "height", "pixels", "georeference")
            image = {"id": index + 1, **{key: record[key] for key in keys if key in record}}
            if "pixels" in record:
                image["label_map"] = f"{LABEL_MAPS}/{self._label_maps[record['file_name']]}"
            yield (",\n" if index else "\n") + json.dumps(image)
        categories = [{"id": index + 1, "name": name} for index, name in enumerate(classes)]
        yield '],\n"categories": ' + json.dumps(categories) + ',\n"annotations": ['
        count = 0
        for index, record in enumerate(self._journal.records(names)):
            annotations = coco_annotations(record, index + 1, count + 1)
            if "segments" in record:
                name = self._label_maps[record["file_name"]]
                annotations = [{"image_id": index + 1, "file_name": name, "segments_info": record["segments"]}]
            for annotation in annotations:
                yield (",\n" if count else "\n") + json.dumps(annotation)
                count += 1
        yield "]}\n"

    def _write_dota(self, names: Sequence[str], classes: Sequence[str]) -> None:
        """One file for each class, as DOTA's task 1 wants them, when there are rotated boxes."""
        for file in self._dota_files():
            file.unlink()
        # A model yields one kind of boxes, so the first tells.
        entries = (entry for record in self._journal.records(names) for entry in record.get("detections", ()))
        if "rbox" not in next(entries, {}):
            return
        with ExitStack() as opened:
            files = [opened.enter_context(replacing(self._target(DOTA, name))) for name in dota_names(classes)]
            images = dota_images(names)
            for record in self._journal.records(names):
                for entry in record["detections"]:
                    line = task1_line(images[record["file_name"]], entry["score"], entry["segmentation"][0])
                    files[entry["category_id"] - 1].write(line.encode(errors="surrogateescape"))

    def _dota_files(self) -> list[Path]:
        return list((self.path / DOTA).glob(task1_name("*")))

    def _target(self, folder: str, name: str) -> Path:
        """Where a file goes; its folder is there afterwards."""
        target = self.path / folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _take_over(self) -> Journal:
        """The lines of an earlier run, as far as they still hold."""
        path = self.path / JOURNAL
        written = path.stat().st_mtime_ns if path.exists() else 0
        sources = {source.name: source for source in self._scan.sources}
        return Journal(path, lambda record: self._holds(record, sources.get(record["file_name"]), written))

    def _holds(self, record: dict[str, Any], source: Source | None, written: int) -> bool:
        """Whether an earlier run's line is about the file as it is now, and its picture is there when wanted."""
        if source is None or record.get("file_size") != source.file_size:
            return False
        if source.path.stat().st_mtime_ns > written:
            return False
        for key, folder in (("pixels", LABEL_MAPS), ("segments", PANOPTIC)):
            if key in record and not (self.path / folder / self._label_maps[source.name]).is_file():
                return False
        if any(not (self.path / GEOJSON / (source.name + suffix)).is_file() for suffix in geojson_suffixes(record)):
            return False
        return not self._pictures or (self.path / PICTURES / self._pictures[source.name]).is_file()

    def _check(self, settings: dict[str, Any]) -> None:
        try:
            earlier = json.loads((self.path / SETTINGS).read_text())
        except FileNotFoundError:
            if (self.path / JOURNAL).exists():
                raise UserError(
                    f"{self.path} holds a {JOURNAL} but no {SETTINGS} that says where it is from; "
                    "choose another --out, or pass --overwrite to start afresh"
                ) from None
            return
        except ValueError:
            earlier = {}
        changes = [
            f"another {_DESCRIBED[key]}" if key in _DESCRIBED else f"{key} {earlier.get(key)!r} there, {value!r} now"
            for key, value in settings.items()
            if key not in _NOT_COMPARED and value != earlier.get(key)
        ]
        if changes:
            raise UserError(
                f"{self.path} holds a run with other settings ({'; '.join(changes)}); "
                "choose another --out, or pass --overwrite to replace it"
            )

    def _clear(self) -> None:
        """Removes an earlier run: its own files and the pictures that its lines name, and nothing else."""
        journal = self.path / JOURNAL
        if journal.exists():
            earlier = Journal(journal, lambda record: True)
            names = earlier.names()
            earlier.close()
            for picture in picture_names(names).values():
                (self.path / PICTURES / picture).unlink(missing_ok=True)
            for label_map in label_map_names(names).values():
                for folder in (LABEL_MAPS, PANOPTIC):
                    (self.path / folder / label_map).unlink(missing_ok=True)
            for name in names:
                for suffix in GEOJSON_SUFFIXES:
                    (self.path / GEOJSON / (name + suffix)).unlink(missing_ok=True)
            for file in self._dota_files():
                file.unlink()
        for name in (RESULTS, SKIPPED, JOURNAL, SETTINGS):
            (self.path / name).unlink(missing_ok=True)


def geojson_suffixes(record: dict[str, Any]) -> tuple[str, ...]:
    """Which files with polygons belong to a record: rotated boxes have them, and whatever was found in tiles."""
    entries = record.get("detections")
    if entries is None or not ("tiles" in record or any("rbox" in entry for entry in entries)):
        return ()
    return GEOJSON_SUFFIXES if "georeference" in record else GEOJSON_SUFFIXES[:1]


def dota_names(classes: Sequence[str]) -> list[str]:
    """The file of each class below `dota/`."""
    return [task1_name(name) for name in _distinct(name.replace("/", "-") for name in classes)]


def dota_images(names: Sequence[str]) -> dict[str, str]:
    """How images are called in files of `dota/`: without suffix, as far as that is clear, and without blanks."""
    stems = Counter(os.path.splitext(name)[0] for name in names)
    short = (stem if stems[stem] == 1 else name for name in names for stem in [os.path.splitext(name)[0]])
    return dict(zip(names, _distinct("_".join(name.split()) for name in short)))


def _distinct(names: Iterable[str]) -> list[str]:
    """The names, with a number added to those that came before."""
    result: dict[str, None] = {}
    for name in names:
        number, unique = 1, name
        while unique in result:
            number += 1
            unique = f"{name}-{number}"
        result[unique] = None
    return list(result)


def derived_names(names: Sequence[str], suffixes: Collection[str], added: str) -> dict[str, str]:
    """Where files about images go: under an image's own name if that ends as it should, else under one beside it.

    With `added` `.jpg`, `scan.tif` becomes `scan.tif.jpg`, and `scan.tif.1.jpg` if there is an image of that name.

    Args:
        names: of all images.
        suffixes: endings, in lower case, of the names that are kept.
        added: the ending that others get.
    """
    taken = {name for name in names if os.path.splitext(name)[1].lower() in suffixes}
    derived = {}
    for name in names:
        result = name
        if name not in taken:
            result, count = f"{name}{added}", 0
            while result in taken:
                count += 1
                result = f"{name}.{count}{added}"
            taken.add(result)
        derived[name] = result
    return derived


def picture_names(names: Sequence[str]) -> dict[str, str]:
    """Where each image's picture goes below `images/`."""
    return derived_names(names, _PICTURE_FORMATS, ".jpg")


def label_map_names(names: Sequence[str]) -> dict[str, str]:
    """Where each image's label map goes below `labels/`."""
    return derived_names(names, {".png"}, ".png")


def _lock(folder: Path) -> int:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(f"another run is writing to {folder}; wait for it or choose another --out") from None
    return descriptor


def _write_json(path: Path, value: Any) -> None:
    with replacing(path) as file:
        file.write((json.dumps(value, indent=2) + "\n").encode())
