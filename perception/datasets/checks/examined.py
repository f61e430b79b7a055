"""Data sets that know themselves how to be looked at: those that hold other things than images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .report import Section


class Examined(ABC):
    """A data set whose look at its data is its own; classes of data sets inherit from it."""

    @classmethod
    @abstractmethod
    def examine(cls, settings: Mapping[str, Any], section: Section, limit: int) -> None:
        """Adds statistics and faults of the data that settings describe.

        Args:
            settings: of the config, with ``type``; nothing slow may be built from them.
            section: of the report.
            limit: so many samples are looked into at most.

        Raises:
            UserError: the data cannot be read at all.
        """

    @staticmethod
    def remedy(root: Path) -> str | None:
        """What to do about a missing file of the data set's folder, given what is there; None where it is not known."""
        return None

    @classmethod
    def draw(cls, settings: Mapping[str, Any], path: Path) -> bool:
        """Writes a JPEG of some samples with their labels; False where the data set draws none."""
        return False
