"""A JSON-lines file that grows while a run goes on and survives being killed at any byte."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from perception.engine.atomic import replacing


class Journal:
    """One line for each source, found again by its name.

    Args:
        path: the file; lines that are already there are taken over.
        keep: says of a line that was read whether it still holds. Torn and unparsable lines never do.
    """

    def __init__(self, path: str | Path, keep: Callable[[dict[str, Any]], bool]) -> None:
        self.path = Path(path)
        # name -> (offset, length); insertion order is the order in the file
        self._lines: dict[str, tuple[int, int]] = {}
        self._outdated = False  # lines that a later one of the same name replaces
        if self.path.exists():
            self._take_over(keep)
        self._appending = threading.Lock()
        self._open()

    def __contains__(self, name: str) -> bool:
        return name in self._lines

    def names(self) -> list[str]:
        """The names of all sources that have a line."""
        return list(self._lines)

    def append(self, record: dict[str, Any]) -> None:
        """Adds one record, or replaces that of the same name, from any thread; when this returns, the line is the
        operating system's to keep.
        """
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        with self._appending:
            self._file.write(line)
            self._outdated |= self._lines.pop(record["file_name"], None) is not None
            self._lines[record["file_name"]] = (self._end, len(line))
            self._end += len(line)

    def records(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Reads the records of `names` that are there, in this order."""
        with self.path.open("rb") as file:
            for name in names:
                if name in self._lines:
                    yield json.loads(_read(file, self._lines[name]))

    def arrange(self, names: Sequence[str]) -> None:
        """Puts the lines into the order of `names`."""
        order = [name for name in names if name in self._lines]
        if self._outdated or order != list(self._lines):
            self._file.close()
            self._rewrite(order)
            self._open()

    def close(self) -> None:
        self._file.close()

    def _open(self) -> None:
        self._file: BinaryIO = self.path.open("ab", buffering=0)
        self._end = self.path.stat().st_size

    def _take_over(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        offset, damaged = 0, False
        with self.path.open("rb") as file:
            for line in file:
                record = _parse(line)
                if record is not None and keep(record):
                    # A name that comes twice: the later line counts, at the later place.
                    damaged |= self._lines.pop(record["file_name"], None) is not None
                    self._lines[record["file_name"]] = (offset, len(line))
                else:
                    damaged = True
                offset += len(line)
        if damaged:
            self._rewrite(list(self._lines))

    def _rewrite(self, order: list[str]) -> None:
        lines, offset = {}, 0
        with self.path.open("rb") as source, replacing(self.path) as target:
            for name in order:
                line = _read(source, self._lines[name])
                target.write(line)
                lines[name] = (offset, len(line))
                offset += len(line)
        self._lines, self._outdated = lines, False


def _read(file: BinaryIO, place: tuple[int, int]) -> bytes:
    file.seek(place[0], os.SEEK_SET)
    return file.read(place[1])


def _parse(line: bytes) -> dict[str, Any] | None:
    """A line's record, or None for one that was torn by a kill or a full disk."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "file_name" in record else None
