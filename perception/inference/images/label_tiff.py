"""Label maps as GeoTIFF files, which lie where their image does."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from perception.inference.images.gdal_raster import gdal
from perception.inference.images.results import UNLABELLED
from perception.inference.images.sample import Georeference, GroundControl

# Side of the blocks, in which programs that show maps read them.
_BLOCK = 256


class LabelTiffWriter(AbstractContextManager):
    """A tiled 8-bit GeoTIFF with a palette, open for rows from the top; what is not labelled is its nodata.

    Args:
        path: the file.
        width, height: of the map in pixels.
        palette: RGB by label.
        place: of the image.
    """

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        palette: Sequence[tuple[int, int, int]],
        place: Georeference | GroundControl,
    ) -> None:
        self._top, self._width = 0, width
        with gdal() as rasterio:
            options: dict[str, Any] = dict(
                driver="GTiff", width=width, height=height, count=1, dtype="uint8", nodata=UNLABELLED,
                compress="deflate", bigtiff="if_safer", **_located(rasterio, place),
            )  # fmt: skip
            if width > _BLOCK and height > _BLOCK:
                options |= dict(tiled=True, blockxsize=_BLOCK, blockysize=_BLOCK)
            self._file = rasterio.open(path, "w", **options)
            colours = {label: (*colour, 255) for label, colour in enumerate(palette)}
            self._file.write_colormap(1, {**colours, UNLABELLED: (0, 0, 0, 0)})

    def write(self, labels: np.ndarray) -> None:
        """Adds the next rows, uint8 (rows, width)."""
        with gdal() as rasterio:
            window = rasterio.windows.Window(0, self._top, self._width, len(labels))
            self._file.write(labels, 1, window=window)
        self._top += len(labels)

    def __exit__(self, *exception: object) -> None:
        with gdal():
            self._file.close()


def _located(rasterio: Any, place: Georeference | GroundControl) -> dict[str, Any]:
    """The image's place, as rasterio takes it."""
    crs = None if place.crs is None else rasterio.crs.CRS.from_user_input(place.crs)
    if isinstance(place, Georeference):
        return {"crs": crs, "transform": rasterio.Affine(*place.transform)}
    points = [
        rasterio.control.GroundControlPoint(row=row, col=column, x=x, y=y, z=z) for column, row, x, y, z in place.points
    ]
    return {"crs": crs, "gcps": points}
