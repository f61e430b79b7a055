"""Writes the page, item by item: nothing grows with their number but the page itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files as resources
from pathlib import Path
from typing import Any, BinaryIO

from perception.datasets.palette import Colour, default_palette
from perception.engine.atomic import replacing
from perception.engine.page.pictures import FOLDER, key_of, scene_file, thumbnail_file, view_file

INDEX = "index.html"
RECORDS = f"{FOLDER}/records"
LIMIT = 50_000
"""Items that a page shows at most."""

_SCRIPTS = ("tools.js", "items.js", "grid.js", "flat.js", "space.js", "view.js", "main.js")
_CHUNK = 2**18  # bytes of records after which the next file begins
_BINS = 20  # of scores, from 0 to 1


@dataclass(frozen=True)
class Item:
    """What the page shows of one thing.

    Attributes:
        name: shown, searched, and what its files are called by.
        record: JSON; the large view shows it, and draws what it says was found.
        objects: class and score, in [0, 1] or None, of each object.
        shares: of label maps instead: class and its share of the pixels.
        sequence: what it belongs to.
        picture: path below the page's folder, of a picture with what was found.
        files: other files about it, by paths below the page's folder.
        measure: how good it is, as far as that is known.
    """

    name: str
    record: Mapping[str, Any]
    objects: Iterable[tuple[str, float | None]] = ()
    shares: Mapping[str, float] = field(default_factory=dict)
    sequence: str = ""
    picture: str | None = None
    files: Sequence[str] = ()
    measure: float | None = None


@dataclass(frozen=True)
class Facts:
    """What the page says of all items.

    Attributes:
        title, unit, units: words.
        classes: names, as far as they are known beforehand; others are added as they come.
        palette: their colours.
        originals: path, from the page, of the folder in which names are files; None where they are none.
        measure: what :attr:`Item.measure` is; low values are bad.
        pending: items that are not done yet.
    """

    title: str
    unit: str
    units: str
    classes: Sequence[str] = ()
    palette: Sequence[Colour] = ()
    originals: str | None = None
    measure: str | None = None
    pending: int = 0


def write_page(root: Path, facts: Facts, items: Iterable[Item], skipped: Mapping[str, str]) -> None:
    """Writes the page; the same items give the same bytes.

    Args:
        root: the folder; the items' own files (see `pictures`) are there already, as far as there are some.
        facts: what to say.
        items: in the order in which they are shown at first.
        skipped: names and reasons of what has no item.
    """
    (root / RECORDS).mkdir(parents=True, exist_ok=True)
    classes = {name: number for number, name in enumerate(facts.classes)}
    sequences: dict[str, int] = {}
    reasons: dict[str, int] = {}
    chunks = _Chunks(root)
    count, left_out = 0, 0
    head, tail = _asset("page.html").split("{{items}}")
    with replacing(root / INDEX) as page:
        page.write(head.replace("{{style}}", _asset("page.css")).encode())
        rows = _Rows(page)
        for item in items:
            if count == LIMIT:
                left_out += 1
                continue
            count += 1
            chunks.add({**item.record, "files": list(item.files)} if item.files else dict(item.record))
            rows.add(_row(root, item, classes, sequences))
        for name in sorted(skipped):
            if count == LIMIT:
                left_out += 1
                continue
            count += 1
            reason = reasons.setdefault(skipped[name], len(reasons))
            rows.add([name, "", 0, 0, [], None, -1, reason, None])
        chunks.close()
        said = {
            "title": facts.title,
            "unit": facts.unit,
            "units": facts.units,
            "classes": list(classes),
            "colours": [*facts.palette[: len(classes)], *default_palette(len(classes))[len(facts.palette) :]],
            "sequences": list(sequences),
            "reasons": list(reasons),
            "chunks": chunks.firsts,
            "originals": facts.originals,
            "measure": facts.measure,
            "pending": facts.pending,
            "left_out": left_out,
        }
        scripts = "\n".join(map(_asset, _SCRIPTS))
        page.write(tail.replace("{{facts}}", _inline(said)).replace("{{scripts}}", scripts).encode())


def remove_page(root: Path) -> None:
    """Removes the page and its records; the files of single items stay."""
    (root / INDEX).unlink(missing_ok=True)
    for path in _records(root):
        path.unlink()
    for folder in (root / RECORDS, root / FOLDER):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


class _Rows:
    """A list in the page, which grows row by row."""

    def __init__(self, page: BinaryIO) -> None:
        self._page, self._before = page, ""

    def add(self, row: list[Any]) -> None:
        self._page.write((self._before + _inline(row)).encode())
        self._before = ",\n"


class _Chunks:
    """Records in scripts of some size; `firsts` are the numbers of their first items."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lines: list[str] = []
        self._bytes, self._count = 0, 0
        self.firsts: list[int] = []

    def add(self, record: Mapping[str, Any]) -> None:
        line = json.dumps(record, separators=(",", ":"))
        if self._bytes + len(line) > _CHUNK:
            self._write()
        self._lines.append(line)
        self._bytes += len(line)
        self._count += 1

    def close(self) -> None:
        """Writes the rest, and removes files of an earlier page that had more."""
        self._write()
        for path in _records(self._root):
            if int(path.stem) >= len(self.firsts):
                path.unlink()

    def _write(self) -> None:
        if self._lines:
            number = len(self.firsts)
            with replacing(self._root / RECORDS / f"{number:05d}.js") as file:
                file.write(f"page.take({number}, [\n".encode())
                file.write(",\n".join(self._lines).encode())
                file.write(b"\n])\n")
            self.firsts.append(self._count - len(self._lines))
        self._lines, self._bytes = [], 0


def _records(root: Path) -> list[Path]:
    return sorted(path for path in (root / RECORDS).glob("*.js") if path.stem.isdecimal())


def _row(root: Path, item: Item, classes: dict[str, int], sequences: dict[str, int]) -> list[Any]:
    """What `items.js` reads: name, key, which files there are, picture, amounts, best score, sequence, reason, measure.

    The amounts of a class are its number, how many objects, and bins of scores with how many are in each; or its number
    and its share in thousandths.
    """
    found: dict[int, dict[int, int]] = {}
    best = None
    for name, score in item.objects:
        of_class = found.setdefault(classes.setdefault(name, len(classes)), {})
        place = _BINS - 1 if score is None else min(max(int(score * _BINS), 0), _BINS - 1)
        of_class[place] = of_class.get(place, 0) + 1
        if score is not None:
            best = score if best is None else max(best, score)
    amounts: list[list[Any]] = [
        [number, sum(of_class.values()), *(value for pair in sorted(of_class.items()) for value in pair)]
        for number, of_class in sorted(found.items())
    ]
    for name, share in item.shares.items():
        amounts.append([classes.setdefault(name, len(classes)), round(1000 * share, 1)])
    there = (thumbnail_file(item.name), view_file(item.name), scene_file(item.name))
    flags = sum((root / file).is_file() << bit for bit, file in enumerate(there))
    picture: Any = 1 if item.picture == f"images/{item.name}" else item.picture or 0
    sequence = sequences.setdefault(item.sequence, len(sequences)) if item.sequence else -1
    rounded = None if best is None else round(best, 3)
    measure = None if item.measure is None else round(item.measure, 4)
    return [item.name, key_of(item.name), flags, picture, amounts, rounded, sequence, -1, measure]


def _inline(value: Any) -> str:
    """JSON inside of a page: nothing in it ends a script."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return resources("perception.engine.page").joinpath("assets", name).read_text(encoding="utf-8")
