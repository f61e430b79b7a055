"""Tiles of a gallery from their files.

Worker processes import this module, so it imports nothing heavy.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.datasets.images import UnreadableImageError
from perception.datasets.views import read_tile, resize
from perception.inference.reading import Refused
from perception.inference.scan import Source


@dataclass(frozen=True)
class TileSample:
    """A tile at the model's size, uint8 (side, side, 3) RGB; the digest of its file, and the file's own side."""

    pixels: np.ndarray
    sha256: str
    side: int


def load_tile(path: Path, side: int) -> TileSample:
    """Reads a tile for a model that takes `side` x `side` pixels.

    Raises:
        UnreadableImageError: it cannot be read, or is not square.
    """
    pixels = read_tile(path)
    return TileSample(resize(pixels, (side, side)), hashlib.sha256(path.read_bytes()).hexdigest(), len(pixels))


def read_source(source: Source, side: int) -> TileSample | Refused:
    """:func:`load_tile` in a worker process."""
    try:
        return load_tile(source.path, side)
    except UnreadableImageError as error:
        return Refused(str(error))
    except OSError as error:
        return Refused(error.strerror or str(error))


def died(source: Source) -> Refused:
    """What becomes of a tile that kills its process."""
    return Refused("reading it kills the process: it is damaged, or needs more memory than there is")
