"""Places of tiles that are georeferenced rasters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from perception.engine.errors import UserError
from perception.geometry.geodesy import great_circle

from .places import Place


def places_of_rasters(paths: Mapping[str, Path]) -> dict[str, Place]:
    """Middle and side of each file, from its own coordinate system.

    Args:
        paths: files by name.

    Raises:
        UserError: rasterio is not installed, or a file has no coordinate system.
    """
    try:
        import rasterio
        from rasterio.warp import transform
    except ImportError:
        raise UserError("reading coordinates of GeoTIFF files needs rasterio: pip install rasterio") from None

    places = {}
    for name, path in paths.items():
        try:
            with rasterio.open(path) as raster:
                crs, affine, width, height = raster.crs, raster.transform, raster.width, raster.height
        except rasterio.errors.RasterioError as error:
            raise UserError(f"{path} cannot be read as a raster: {error}") from error
        if crs is None or affine.is_identity:
            raise UserError(f"{path} has no coordinate system; give a table with the columns file, lat, lon")
        if abs(affine.b) > 1e-9 * abs(affine.a) or abs(affine.d) > 1e-9 * abs(affine.e):
            raise UserError(f"{path} is turned against north; warp it (gdalwarp) first")
        columns, rows = [width / 2, 0, width], [height / 2, height / 2, height / 2]
        xs, ys = zip(*(affine @ point for point in zip(columns, rows)))
        longitudes, latitudes = transform(crs, "EPSG:4326", xs, ys)[:2]
        ends = [np.array([latitudes[k], longitudes[k]]) for k in (1, 2)]
        side = float(great_circle(*ends))
        if not math.isfinite(side) or side <= 0:
            raise UserError(f"{path}: its coordinates in {crs} cannot be brought to latitude and longitude")
        places[name] = Place(latitudes[0], longitudes[0], side)
    return places
