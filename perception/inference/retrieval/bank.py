"""Descriptors of a gallery on disk: filled in pieces, updated by file, and refused when another model made them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from perception.engine.atomic import output_folder, replacing
from perception.engine.errors import UserError
from perception.inference.journal import Journal
from perception.inference.reading import Refused
from perception.inference.scan import Source

ABOUT, INDEX = "bank.json", "tiles.jsonl"
_NEW_INDEX, _NEW_VECTORS = "new_tiles.jsonl", "new_vectors.f32"
VERSION = 1


@dataclass(frozen=True)
class Encoded:
    """A tile's descriptor (C,) of unit length, the digest of its file's bytes, and its side in pixels."""

    vector: np.ndarray
    sha256: str
    pixels: int


@dataclass(frozen=True)
class Entry:
    """A row of the bank.

    Attributes:
        name: of the tile, the first in alphabetical order if several files have the same bytes.
        duplicates: names of the others.
        pixels: side of the file.
    """

    name: str
    duplicates: tuple[str, ...]
    pixels: int


class Bank:
    """A complete bank.

    Attributes:
        entries: what each row is about, by name.
        vectors: float32 (R, C), memory-mapped.
        unusable: tiles without a row, with reasons.
    """

    def __init__(self, folder: Path) -> None:
        head, *records = _lines(folder / INDEX)
        first: dict[str, dict[str, Any]] = {}
        others: dict[str, list[str]] = {}
        self.unusable: dict[str, str] = {}
        for record in records:
            if "reason" in record:
                self.unusable[record["file_name"]] = record["reason"]
            elif record["sha256"] in first:
                others.setdefault(record["sha256"], []).append(record["file_name"])
            else:
                first[record["sha256"]] = record
        self.entries = [
            Entry(record["file_name"], tuple(others.get(digest, ())), record["pixels"])
            for digest, record in first.items()
        ]
        # Copy-on-write, because torch wants arrays that may be written; nothing is.
        self.vectors = _mapped(folder / head["vectors"], head["channels"], "c")
        if len(self.vectors) != len(self.entries):
            raise UserError(f"the bank in {folder} is damaged; remove it to encode the gallery again")


Encode = Callable[[Sequence[Sequence[Source]]], Iterator[Sequence[Encoded | Refused]]]
"""Encodes batches of tiles, in order."""


def update(
    folder: Path,
    identity: dict[str, str],
    channels: int,
    tiles: Sequence[Source],
    encode: Encode,
    batch_size: int,
    say: Callable[[str], None],
) -> Bank:
    """Brings a bank up to date with a gallery: added and changed tiles are encoded, removed ones dropped.

    An update that is interrupted goes on where it stopped. Batches are the same then, and so are all bytes.

    Args:
        folder: the bank's; made when it does not exist.
        identity: what descriptors depend on, by name; a bank of another identity is refused.
        channels: length of a descriptor.
        tiles: the gallery in its order.
        encode: does the work.
        batch_size: tiles at a time.
        say: is told what there is to do.

    Raises:
        UserError: the bank is another model's, or the folder holds something else or cannot be made.
    """
    output_folder(folder)
    _check(folder, identity)
    head, *records = _lines(folder / INDEX) if (folder / INDEX).is_file() else [None]
    kept = {record["file_name"]: record for record in records}
    changed = [tile for tile in tiles if not _same(kept.get(tile.name), tile)]
    removed = len(kept.keys() - {tile.name for tile in tiles})
    if changed or removed or head is None:
        old = f", {len(tiles) - len(changed)} are in the bank, {removed} are gone" if kept else ""
        say(f"gallery: {len(changed)} tiles to encode{old}")
        _write_json(folder / ABOUT, {"version": VERSION, "channels": channels, **identity})
        _encode(folder, channels, changed, encode, batch_size)
        _merge(folder, channels, tiles, kept, head and head["vectors"])
    return Bank(folder)


def _encode(folder: Path, channels: int, tiles: Sequence[Source], encode: Encode, batch_size: int) -> None:
    """Appends what is new to files of its own, a batch's vectors before its lines."""
    by_name = {tile.name: tile for tile in tiles}

    def holds(record: dict[str, Any]) -> bool:
        tile = by_name.get(record["file_name"])
        return tile is not None and _same(record, tile)

    with closing(Journal(folder / _NEW_INDEX, holds)) as journal, (folder / _NEW_VECTORS).open("ab") as vectors:
        rows = vectors.tell() // (4 * channels)
        vectors.truncate(rows * 4 * channels)
        batches = [tiles[start : start + batch_size] for start in range(0, len(tiles), batch_size)]
        pending = [batch for batch in batches if not all(tile.name in journal for tile in batch)]
        for batch, results in zip(pending, encode(pending)):
            done = [isinstance(result, Encoded) and _usable(result.vector) for result in results]
            for result, usable in zip(results, done):
                if usable:
                    vectors.write(np.ascontiguousarray(result.vector, np.float32).tobytes())
            vectors.flush()
            for tile, result, usable in zip(batch, results, done):
                line = {"file_name": tile.name, "file_size": tile.file_size, "modified": tile.modified()}
                if usable:
                    line |= {"sha256": result.sha256, "pixels": result.pixels, "row": rows}
                    rows += 1
                elif isinstance(result, Refused):
                    line["reason"] = result.reason
                else:
                    line["reason"] = "its descriptor is zero or not finite"
                journal.append(line)


def _merge(
    folder: Path, channels: int, tiles: Sequence[Source], kept: dict[str, dict[str, Any]], old_vectors: str | None
) -> None:
    """Writes index and vectors anew, in the order of the gallery, each distinct file's vector once.

    The index names the file of vectors that it is about, so that both change in one moment.
    """
    new = {record["file_name"]: record for record in _lines(folder / _NEW_INDEX)}
    new_rows = _mapped(folder / _NEW_VECTORS, channels)
    old_rows = _mapped(folder / old_vectors, channels) if old_vectors else new_rows[:0]
    old_places: dict[str, int] = {}
    for record in kept.values():
        if "sha256" in record:
            old_places.setdefault(record["sha256"], len(old_places))
    records = [dict(new.get(tile.name) or kept[tile.name]) for tile in tiles]
    rows: dict[str, np.ndarray] = {}
    for tile, record in zip(tiles, records):
        row, digest = record.pop("row", None), record.get("sha256")
        if digest is not None and digest not in rows:
            rows[digest] = new_rows[row] if tile.name in new else old_rows[old_places[digest]]
    lines = "".join(f"{json.dumps(record)}\n" for record in records)
    name = f"vectors-{hashlib.sha256(lines.encode()).hexdigest()[:16]}.f32"
    with replacing(folder / name) as vectors:
        for row in rows.values():
            vectors.write(row.tobytes())
    with replacing(folder / INDEX) as index:
        index.write(f"{json.dumps({'vectors': name, 'channels': channels})}\n{lines}".encode())
    for path in (_NEW_INDEX, _NEW_VECTORS, *([old_vectors] if old_vectors and old_vectors != name else [])):
        (folder / path).unlink(missing_ok=True)


def _check(folder: Path, identity: dict[str, str]) -> None:
    path = folder / ABOUT
    if not path.exists():
        if any(folder.iterdir()):
            raise UserError(f"{folder} holds files that are no bank of descriptors; choose another folder for the bank")
        return
    try:
        found = json.loads(path.read_text())
    except ValueError:
        raise UserError(f"{path} is damaged; remove {folder} to encode the gallery again") from None
    if found.get("version") != VERSION:
        raise UserError(f"{folder} is a bank of another version; remove it to encode the gallery again")
    changes = [name for name, value in identity.items() if found.get(name) != value]
    if changes:
        raise UserError(
            f"the bank in {folder} was made with another {' and '.join(changes)}: its descriptors do not fit this "
            "model; choose another folder for the bank, or remove this one"
        )


def _same(record: dict[str, Any] | None, tile: Source) -> bool:
    return record is not None and (record["file_size"], record["modified"]) == (tile.file_size, tile.modified())


def _usable(vector: np.ndarray) -> bool:
    return bool(np.isfinite(vector).all() and np.abs(vector).max() > 0)


def _mapped(path: Path, channels: int, mode: Literal["r", "c"] = "r") -> np.ndarray:
    """Vectors (rows, channels) of a file; an empty file cannot be mapped."""
    if not path.is_file() or path.stat().st_size == 0:
        return np.zeros((0, channels), np.float32)
    return np.memmap(path, np.float32, mode).reshape(-1, channels)


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line)


def _write_json(path: Path, value: Any) -> None:
    with replacing(path) as file:
        file.write((json.dumps(value, indent=2) + "\n").encode())
