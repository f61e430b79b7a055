"""Panoramas of a folder.

Worker processes import this module, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.datasets.images import UnreadableImageError
from perception.datasets.views import read_panorama, resize
from perception.inference.images.reader import IMAGE_SUFFIXES
from perception.inference.reading import Refused
from perception.inference.scan import Scan, Source, scan


@dataclass(frozen=True)
class Panorama:
    """A panorama at the model's size, uint8 (height, width, 3) RGB."""

    pixels: np.ndarray


@dataclass(frozen=True)
class PanoramaReader:
    """Every file that by its name is an image is a query.

    Attributes:
        size: (height, width) of the model's panoramas.
    """

    size: tuple[int, int]

    def scan(self, folder: Path, patterns: Sequence[str], exclude: Path) -> Scan:
        return scan(folder, IMAGE_SUFFIXES, patterns, exclude)

    def read(self, source: Source, alone: bool) -> Panorama | Refused:
        try:
            return Panorama(resize(read_panorama(source.path), self.size))
        except UnreadableImageError as error:
            return Refused(str(error))

    def nbytes(self, sample: Panorama) -> int:
        return sample.pixels.nbytes
