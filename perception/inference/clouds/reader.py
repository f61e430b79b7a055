"""Finds sequences of clouds in folders and reads them. Worker processes import this module."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from perception.datasets.clouds.cloud import Cloud, UnreadableCloudError
from perception.datasets.clouds.reading import SUFFIXES, read_cloud
from perception.inference.reading import Refused
from perception.inference.scan import Scan, Source, scan

from .sequences import arrange


class CloudReader:
    """Each folder with clouds is a sequence.

    Args:
        columns: names of the columns of raw floats and of arrays; see
            :func:`~perception.datasets.clouds.reading.read_cloud`.
        unit: of coordinates, metres.
    """

    def __init__(self, columns: Sequence[str] | None = None, unit: float = 1.0) -> None:
        self._columns, self._unit = None if columns is None else tuple(columns), unit

    def scan(self, folder: Path, patterns: Sequence[str], exclude: Path) -> Scan:
        found = scan(folder, SUFFIXES, patterns, exclude)
        arrange(found, Path(folder))
        return found

    def read(self, source: Source, alone: bool) -> Cloud | Refused:
        try:
            return read_cloud(source.path, self._columns, self._unit)
        except UnreadableCloudError as error:
            return Refused(str(error))
        except OSError as error:
            return Refused(f"it cannot be read ({error.strerror})")
        except MemoryError:
            return Refused("it does not fit into memory")

    def nbytes(self, sample: Cloud) -> int:
        return sample.nbytes
