"""The picture of an image that is too large for one."""

from __future__ import annotations

from contextlib import closing

import numpy as np

from perception.datasets.windows import Window
from perception.inference.images.windowed import Raster

OVERVIEW = 4096
"""The longest side of a picture; those of larger images are reduced by a whole factor."""

_ROWS = 256


def read_overview(raster: Raster) -> tuple[np.ndarray, int]:
    """Reads an image reduced, uint8 (height, width, 3) RGB, and by which factor.

    Raises:
        DamagedError: the file cannot be read.
    """
    factor = overview_factor(raster.width, raster.height)
    with closing(raster.reopened() if factor == 1 else raster.reduced(factor)) as view:
        pixels = np.empty((view.height, view.width, 3), np.uint8)
        for top in range(0, view.height, _ROWS):
            window = Window(0, top, view.width, min(_ROWS, view.height - top))
            pixels[top : window.bottom] = view.read(window)
    return pixels, factor


def overview_factor(width: int, height: int) -> int:
    """By which whole factor an image has to be reduced so that no side is longer than `OVERVIEW`."""
    return -(-max(width, height) // OVERVIEW)
