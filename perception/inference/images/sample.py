"""An image on its way from the file to the picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Georeference:
    """Where an image lies: the name of its coordinate system, and (a, b, c, d, e, f) of its affine map.

    The point (x, y) of the image, in pixels from the outer corner of the first one, lies at (a x + b y + c, d x + e y +
    f).
    """

    crs: str
    transform: tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class ImageSample:
    """An image as writers see it.

    Attributes:
        pixels: what pictures are drawn on, uint8 (height, width, 3) RGB.
        width, height: of the upright original, in pixels.
        reduction: original pixels per pixel of `pixels`.
        factor: original pixels per pixel of the coordinates of what is found.
        tiles: in how many parts the model saw it; None for an image that it saw whole.
        georeference: where it lies, if that is known.
    """

    pixels: np.ndarray
    width: int
    height: int
    reduction: int
    factor: int
    tiles: int | None = None
    georeference: Georeference | None = None
