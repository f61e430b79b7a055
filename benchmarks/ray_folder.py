"""The kind of folder of `ray_engine.py`: texts, and a model that keeps its core busy, or waits, for a time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_kinds import RECORD

from perception.inference.kinds import KINDS, Kind
from perception.inference.scan import Scan, Source, scan
from perception.inference.writing import Files, Record, Writer


class TextReader:
    def scan(self, folder: Path, patterns: Sequence[str], exclude: Path) -> Scan:
        return scan(folder, {".txt"}, patterns, exclude)

    def read(self, source: Source, alone: bool) -> str:
        return source.path.read_text()

    def nbytes(self, sample: str) -> int:
        return len(sample)


@dataclass(frozen=True)
class Prepared:
    text: str
    shape: str = "one"


class Clock:
    """A model that takes `seconds` for each text, computing or not."""

    def __init__(self, seconds: float, busy: bool) -> None:
        self._seconds, self._busy = seconds, busy

    def prepare(self, source: Source, sample: str) -> Prepared:
        return Prepared(sample)

    def predict(self, batch: Sequence[Prepared]) -> list[int]:
        until = time.thread_time() + len(batch) * self._seconds
        if not self._busy:
            time.sleep(len(batch) * self._seconds)
        while self._busy and time.thread_time() < until:
            pass
        return [len(one.text) for one in batch]


class LineWriter(Writer):
    def takes(self, found: Any) -> bool:
        return isinstance(found, int)

    def wrote(self, record: Record) -> bool:
        return "detections" in record

    def write(self, files: Files, source: Source, sample: Any, found: int, meta: Any) -> Record:
        return {**RECORD, "length": found}


@KINDS.register_module()
class Clocks(Kind):
    unit, units = "text", "texts"

    def __init__(self, seconds: float, busy: bool) -> None:
        self._seconds, self._busy = seconds, busy

    def reader(self, predictor: Any) -> TextReader:
        return TextReader()

    def predictor(self, cfg: Any, checkpoint: Path, running: Any) -> Clock:
        return Clock(self._seconds, self._busy)

    def writers(self, names: Sequence[str], pictures: bool) -> list[Writer]:
        return [LineWriter()]
