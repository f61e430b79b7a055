"""The folder that a run writes: what it holds, what of it can be reused, and when it must not be touched.

`run.json` what the run was started with; `predictions.jsonl` one line for each image, as it goes; `images/` the
pictures, in the folder tree of the input; at the end `predictions.json` (COCO) and `skipped.json`.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from perception.engine.errors import UserError
from perception.inference.atomic import replacing
from perception.inference.journal import Journal
from perception.inference.results import coco_annotations
from perception.inference.scan import Scan, Source

SETTINGS, JOURNAL, RESULTS, SKIPPED, PICTURES = (
    "run.json",
    "predictions.jsonl",
    "predictions.json",
    "skipped.json",
    "images",
)

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
        self._pictures = picture_names([source.name for source in scan.sources]) if pictures else {}
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

    def add(self, record: dict[str, Any], picture: Image.Image | None) -> None:
        """Writes one image's picture and then its line, so that a line says that the picture is there."""
        if picture is not None:
            target = self.path / PICTURES / self._pictures[record["file_name"]]
            target.parent.mkdir(parents=True, exist_ok=True)
            kind = _PICTURE_FORMATS[target.suffix.lower()]
            with replacing(target) as file:
                picture.save(file, kind, **_ENCODING[kind])
        self._journal.append(record)

    def finish(self, classes: Sequence[str], skipped: dict[str, str]) -> None:
        """Writes the files that sum the run up; the same images give the same bytes, in however many runs."""
        names = [source.name for source in self._scan.sources]
        self._journal.arrange(names)
        with replacing(self.path / RESULTS) as file:
            for piece in self._coco(names, classes):
                file.write(piece.encode())
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
            image = {"id": index + 1, **{key: record[key] for key in ("file_name", "width", "height")}}
            yield (",\n" if index else "\n") + json.dumps(image)
        categories = [{"id": index + 1, "name": name} for index, name in enumerate(classes)]
        yield '],\n"categories": ' + json.dumps(categories) + ',\n"annotations": ['
        count = 0
        for index, record in enumerate(self._journal.records(names)):
            for annotation in coco_annotations(record, index + 1, count + 1):
                yield (",\n" if count else "\n") + json.dumps(annotation)
                count += 1
        yield "]}\n"

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
        for name in (RESULTS, SKIPPED, JOURNAL, SETTINGS):
            (self.path / name).unlink(missing_ok=True)


def picture_names(names: Sequence[str]) -> dict[str, str]:
    """Where each image's picture goes below `images/`: its own name if that is a JPEG's or PNG's, else one beside it.

    `scan.tif` becomes `scan.tif.jpg`, and `scan.tif.1.jpg` if there is an image of that name.
    """
    taken = {name for name in names if os.path.splitext(name)[1].lower() in _PICTURE_FORMATS}
    pictures = {}
    for name in names:
        picture = name
        if name not in taken:
            picture, count = f"{name}.jpg", 0
            while picture in taken:
                count += 1
                picture = f"{name}.{count}.jpg"
            taken.add(picture)
        pictures[name] = picture
    return pictures


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
