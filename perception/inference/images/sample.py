"""An image on its way from the file to the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Georeference:
    """Where an image lies: the name of its coordinate system, if it has one, and (a, b, c, d, e, f) of its affine map.

    The point (x, y) of the image, in pixels from the outer corner of the first one, lies at (a x + b y + c, d x + e y +
    f).
    """

    crs: str | None
    transform: tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class GroundControl:
    """Where some points of an image lie: the name of the coordinate system, and (column, row, x, y, z) of each."""

    crs: str | None
    points: tuple[tuple[float, float, float, float, float], ...]


@dataclass(frozen=True)
class ImageSample:
    """An image as writers see it.

    Attributes:
        pixels: what pictures are drawn on, uint8 (height, width, 3) RGB.
        width, height: of the upright original, in pixels.
        reduction: original pixels per pixel of `pixels`.
        factor: original pixels per pixel of the coordinates of what is found.
        tiles: in how many parts the model saw it; None for an image that it saw whole.
        levels: of each level of a pyramid its factor, its windows and how many detections it gave, as JSON; None for
            an image without levels.
        georeference: where it lies, if that is known.
        ground_control: or at least where some of its points lie.
        valid: which pixels of `pixels` are data, bool (height, width); None when all are, or nobody asks any more.
        reading: how a raster's samples were read, as JSON; None when there is only one way.
        remark: the same in words, for the user.
    """

    pixels: np.ndarray
    width: int
    height: int
    reduction: int
    factor: int
    tiles: int | None = None
    levels: Sequence[dict[str, int]] | None = None
    georeference: Georeference | None = None
    ground_control: GroundControl | None = None
    valid: np.ndarray | None = None
    reading: dict[str, Any] | None = None
    remark: str = ""
