"""What a reader is: it says which sources a folder holds and turns one into a sample, in a worker process.

Worker processes import this module, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from perception.inference.scan import Scan, Source


@dataclass(frozen=True)
class Refused:
    """A source that yields no result, and why."""

    reason: str


@dataclass(frozen=True)
class Deferred:
    """A source whose reading needs so much memory that it has to happen alone."""


class Reader(Protocol):
    """Files in, samples out. It is sent to the worker processes, so it must be picklable and small."""

    def scan(self, folder: Path, patterns: Sequence[str], exclude: Path) -> Scan:
        """The sources of a folder in the order in which they are run; those of a sequence follow each other.

        Args:
            folder: a folder, or a single file.
            patterns: shell patterns that the user restricts the sources to; see :func:`perception.inference.scan.scan`.
            exclude: a folder that is not entered.
        """

    def read(self, source: Source, alone: bool) -> Any | Refused | Deferred:
        """Reads a source in a worker process.

        Whatever is wrong with it comes back as `Refused`, never as an exception: the process goes on.

        Args:
            source: what to read.
            alone: nothing else is read at the time, so that it may take much memory; otherwise `Deferred` may be
                returned, to be asked again.
        """

    def nbytes(self, sample: Any) -> int:
        """How many bytes a sample holds in memory."""
