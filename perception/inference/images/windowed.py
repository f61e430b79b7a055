"""What readers of windows have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from perception.datasets.images import UnreadableImageError
from perception.datasets.windows import Window
from perception.inference.images.sample import Georeference, GroundControl

_SKIPPED_ROWS = 256
# Bytes of a full image that are read at a time to reduce it, about; at least one row of blocks is.
_BAND_BYTES = 16 * 2**20


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
    def reopened(self) -> Raster:
        """The same image, to be read from its top once more and closed by itself.

        Raises:
            DamagedError: the file cannot be opened again.
        """

    def reduced(self, factor: int) -> Raster:
        """The same image with both sides divided by a whole factor, to be read from its top and closed by itself.

        A pixel is the mean of a block of `factor` x `factor` of this one's, so that a coordinate in it times `factor`
        is one here; rows and columns that fill no block are left out. Never is all of this one in memory.

        Raises:
            DamagedError: the file cannot be opened again.
        """
        return ReducedRows(self.reopened(), factor)

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
        while bottom < window.top:
            # Rows that nobody asks for have to go by all the same, some at a time.
            self._rows = self._read_rows(bottom, min(_SKIPPED_ROWS, window.top - bottom))
            self._top, bottom = bottom, bottom + len(self._rows)
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


class InBlocks(ByRows):
    """Windows that are read as they are asked for, or by rows where blocks of the file are as wide as the image.

    Attributes:
        striped: they are.
    """

    striped: bool

    def read(self, window: Window) -> np.ndarray:
        if self.striped:
            # Windows side by side would decode its blocks again and again.
            return super().read(window)
        self._last = self._channels(window)
        return self._last[..., :3]

    def valid(self, window: Window) -> np.ndarray | None:
        if self.striped:
            return super().valid(window)
        return self._last[..., 3] > 0 if self._last.shape[2] == 4 else None

    def _read_rows(self, top: int, count: int) -> np.ndarray:
        return self._channels(Window(0, top, self.width, count))

    @abstractmethod
    def _channels(self, window: Window) -> np.ndarray:
        """uint8 (height, width, 3), or with a fourth channel that is 0 where there is no data."""


class ReducedRows(ByRows):
    """A raster whose pixels are means of blocks of another one's, of which it reads a band at a time.

    Args:
        full: belongs to this object, which reads it from its top.
        factor: of the reduction.
    """

    def __init__(self, full: Raster, factor: int) -> None:
        super().__init__()
        self._full, self._factor = full, factor
        self.width, self.height = reduced_size(full.width, full.height, factor)

    def reopened(self) -> ReducedRows:
        return ReducedRows(self._full.reopened(), self._factor)

    def close(self) -> None:
        self._full.close()

    def _read_rows(self, top: int, count: int) -> np.ndarray:
        full, factor = self._full, self._factor
        at_once = max(1, _BAND_BYTES // (3 * full.width * factor))
        bands = []
        for start in range(top, top + count, at_once):
            first, last = start * factor, min(start + at_once, top + count) * factor
            window = Window(0, first, full.width, min(last, full.height) - first)
            pixels, valid = full.read(window), full.valid(window)
            bands.append(block_means(pixels, factor) if valid is None else _means_of_data(pixels, valid, factor))
        return np.concatenate(bands)


def reduced_size(width: int, height: int, factor: int) -> tuple[int, int]:
    """Width and height of an image that is reduced by a whole factor: its blocks that are full, at least one."""
    return max(width // factor, 1), max(height // factor, 1)


def block_means(pixels: np.ndarray, factor: int) -> np.ndarray:
    """(height, width, channels) -> (height // factor, width // factor, channels): the mean of each block.

    Whole numbers are rounded. Rows and columns that fill no block are left out; of a side that is shorter than a block,
    all of it counts.

    Example:
        >>> block_means(np.array([[[0], [2], [7]], [[4], [6], [7]]], np.uint8), 2).tolist()
        [[[3]]]
    """
    # Here, because worker processes import this module and need no OpenCV.
    import cv2

    width, height = reduced_size(pixels.shape[1], pixels.shape[0], factor)
    # For whole factors this is the mean of each block, summed in integers.
    reduced = cv2.resize(pixels[: height * factor, : width * factor], (width, height), interpolation=cv2.INTER_AREA)
    return reduced.reshape(height, width, -1)


def _means_of_data(pixels: np.ndarray, valid: np.ndarray, factor: int) -> np.ndarray:
    """The same with a fourth channel: means of what is data, and whether half of a block is."""
    data = valid.astype(np.float32)[..., None]
    shares = block_means(data, factor)
    sums = block_means(pixels * data, factor)
    means = np.divide(sums, shares, out=np.zeros_like(sums), where=shares > 0)
    channels = np.concatenate([means + 0.5, np.where(shares >= 0.5, 255, 0)], axis=2)
    return channels.astype(np.uint8)


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["unreadable"])[-1]
