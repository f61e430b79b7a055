"""What readers of windows have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from perception.datasets.images import UnreadableImageError
from perception.datasets.windows import Window
from perception.inference.images.sample import Georeference, GroundControl


class DamagedError(UnreadableImageError):
    """A file cannot be read on; the message is the reason."""


class Raster(ABC):
    """An open image file.

    Attributes:
        width, height: in pixels, upright.
        georeference: where it lies, if that is known.
        ground_control: or at least where some of its points lie.
        remark: what a user should know of how it is read, after its name; often nothing.
        reading: the same as JSON, for the record.
    """

    width: int
    height: int
    georeference: Georeference | None = None
    ground_control: GroundControl | None = None
    remark: str = ""
    reading: dict | None = None

    @abstractmethod
    def read(self, window: Window) -> np.ndarray:
        """Pixels of a window, uint8 (height, width, 3) RGB. Windows come row by row, from the top.

        Raises:
            DamagedError: the file cannot be read there.
        """

    def valid(self, window: Window) -> np.ndarray | None:
        """Which pixels of the window that was read last are data, bool (height, width); None when all are."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Frees the file and what is in memory of it."""


class ByRows(Raster):
    """Keeps the rows of the current windows, so that each row of the file is decoded once."""

    def __init__(self) -> None:
        self._top, self._rows = 0, np.zeros((0, 0, 3), np.uint8)

    @abstractmethod
    def _read_rows(self, top: int, count: int) -> np.ndarray:
        """Rows that follow those read before: uint8 (count, width, 3), or 4 where the last is 0 for no data."""

    def read(self, window: Window) -> np.ndarray:
        bottom = self._top + len(self._rows)
        if window.bottom > bottom:
            kept = self._rows[max(0, window.top - self._top) :]
            self._top = bottom - len(kept)
            new = self._read_rows(bottom, window.bottom - bottom)
            self._rows = np.concatenate([kept, new]) if len(kept) else new
        return self._part(window)[..., :3]

    def valid(self, window: Window) -> np.ndarray | None:
        part = self._part(window)
        return part[..., 3] > 0 if part.shape[-1] == 4 else None

    def _part(self, window: Window) -> np.ndarray:
        rows = self._rows[window.top - self._top : window.bottom - self._top]
        return rows[:, window.left : window.right]


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["unreadable"])[-1]
