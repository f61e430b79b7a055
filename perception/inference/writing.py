"""What a writer is: one for each kind of result."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from perception.engine.atomic import replacing
from perception.inference.scan import Source

Record = dict[str, Any]
Records = Callable[[], Iterator[Record]]


@dataclass(frozen=True)
class Files:
    """The files below OUT, by their path relative to it; they appear when they are whole.

    Attributes:
        root: OUT.
        parts: a folder that is there, for files that are not whole, where several processes write below OUT. Once it is
            taken away, nothing can be written any more.
    """

    root: Path
    parts: Path | None = None

    def replacing(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Opens a file for writing, in a folder that is made when it is missing."""
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return replacing(target, None if self.parts is None else self.parts / uuid.uuid4().hex)

    def exists(self, name: str) -> bool:
        return (self.root / name).is_file()

    def remove(self, name: str) -> None:
        """Removes a file if it is there."""
        (self.root / name).unlink(missing_ok=True)


class Summary:
    """What is written about many sources, from the lines of the journal. Nothing, unless a subclass says so."""

    def wrote(self, record: Record) -> bool:
        """Whether a line counts here."""
        return True

    def files(self, record: Record) -> Iterable[str]:
        """Files that a line says are there; when one is missing, its source is run again."""
        return ()

    def leftovers(self, record: Record) -> Iterable[str]:
        """All files that may have been written about the source of a line, for a run that starts afresh."""
        return self.files(record)

    def sequence_files(self, sequence: str) -> Iterable[str]:
        """Files about a whole sequence, which `write_sequence` writes."""
        return ()

    def write_sequence(self, files: Files, sequence: str, records: Records, meta: Any) -> None:
        """Writes what there is about a sequence once all of its sources are done.

        Args:
            files: where to.
            sequence: its name.
            records: yields the lines of its sources that count here, in their order.
            meta: as the kind returned it, such as the names of classes.
        """

    def finish(self, files: Files, records: Records, meta: Any) -> None:
        """Writes what there is about the run, or removes what an earlier run wrote when there is nothing.

        Args:
            files: where to.
            records: yields all lines that count here, in the order of their sources.
            meta: as for `write_sequence`.
        """

    def clear(self, files: Files) -> None:
        """Removes what `finish` has written."""


class Writer(Summary, ABC):
    """Results of one kind as JSON, files and pictures.

    `write` is called from several threads at once, for different sources.
    """

    @abstractmethod
    def takes(self, found: Any) -> bool:
        """Whether a predictor's result is of this kind."""

    @abstractmethod
    def wrote(self, record: Record) -> bool:
        """Whether a line of the journal is this writer's."""

    @abstractmethod
    def write(self, files: Files, source: Source, sample: Any, found: Any, meta: Any) -> Record:
        """Writes a result's files and returns its line for the journal, to which the run adds `file_name` and
        `file_size` of the source.

        Args:
            files: where to.
            source: what was run.
            sample: as the reader returned it.
            found: as the predictor returned it.
            meta: as the kind returned it, such as the names of classes.
        """
