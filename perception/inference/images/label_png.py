"""Label maps as PNG files with a palette, written band by band: a map may be larger than memory."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_INDEXED, _EIGHT_BITS = 3, 8
# Maps are long runs: more effort hardly makes them smaller.
_LEVEL = 3


class LabelPngWriter:
    """An 8-bit indexed PNG (PNG specification, sections 5 and 11), open for rows from the top.

    Args:
        file: written from its current place.
        width, height: of the map in pixels.
        palette: RGB by label; every other value, such as the unlabelled 255, is black.
    """

    def __init__(self, file: BinaryIO, width: int, height: int, palette: Sequence[tuple[int, int, int]]) -> None:
        self._file, self._width, self._missing = file, width, height
        self._compressor = zlib.compressobj(_LEVEL)
        file.write(_SIGNATURE)
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, _EIGHT_BITS, _INDEXED, 0, 0, 0))
        colours = np.zeros((256, 3), np.uint8)
        colours[: len(palette)] = np.reshape(palette, (-1, 3))
        self._chunk(b"PLTE", colours.tobytes())

    def write(self, labels: np.ndarray) -> None:
        """Adds the next rows, uint8 (rows, width).

        Raises:
            ValueError: they are not as wide as the map, or too many.
        """
        rows, width = labels.shape
        if width != self._width or rows > self._missing:
            raise ValueError(f"{rows} rows of {width} pixels do not fit into {self._missing} rows of {self._width}")
        self._missing -= rows
        # Each row begins with its filter: 0, none, the best for indices.
        self._data(self._compressor.compress(np.pad(labels, ((0, 0), (1, 0))).tobytes()))

    def finish(self) -> None:
        """Writes the end.

        Raises:
            ValueError: rows are missing.
        """
        if self._missing:
            raise ValueError(f"{self._missing} rows are missing")
        self._data(self._compressor.flush())
        self._chunk(b"IEND", b"")

    def _data(self, compressed: bytes) -> None:
        if compressed:
            self._chunk(b"IDAT", compressed)

    def _chunk(self, kind: bytes, content: bytes) -> None:
        self._file.write(struct.pack(">I", len(content)) + kind + content)
        self._file.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))
