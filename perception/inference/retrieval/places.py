"""Where pictures lie on Earth: in their names, in a table, or in the files themselves."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from perception.engine.errors import UserError
from perception.geometry.geodesy import (
    WEB_MERCATOR_PIXEL,
    coordinate_fault,
    great_circle,
    metres_per_pixel,
)

_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_WEB_TILE = re.compile(r"(?:^|[/_-])(\d{1,2})[/_-](\d+)[/_-](\d+)\.[^.]+$")


@dataclass(frozen=True)
class Place:
    """The middle of a picture in degrees, and, for a tile, the ground length of its side in metres."""

    latitude: float
    longitude: float
    side: float | None = None


@dataclass(frozen=True)
class Scale:
    """How large tiles are, where their names or table do not say.

    Attributes:
        pixel: metres per pixel of the files.
        zoom: of web maps with tiles of 256 pixels, instead of `pixel`.
        factor: 2 for doubled resolution ("@2x").
        original: pixels a side before tiles were resized; None when they were not.
    """

    pixel: float | None = None
    zoom: float | None = None
    factor: float = 1.0
    original: int | None = None

    def side(self, latitude: float, pixels: int) -> float | None:
        """Metres of the side of a tile that has so many pixels; None if nothing says so."""
        if self.pixel is not None:
            return self.pixel * pixels
        if self.zoom is not None:
            return metres_per_pixel(latitude, self.zoom, self.factor) * (self.original or pixels)
        return None


def from_satellite_name(name: str) -> Place | None:
    """`satellite_LAT_LON.png`, as VIGOR has it."""
    parts = name.rpartition("/")[2].rpartition(".")[0].split("_")
    return _place(parts[1:3]) if len(parts) >= 3 else None


def from_comma_name(name: str) -> Place | None:
    """`PREFIX,LAT,LON,REST`, as VIGOR names panoramas."""
    parts = name.rpartition("/")[2].split(",")
    return _place(parts[1:3]) if len(parts) >= 3 else None


def from_lat_lon_name(name: str) -> Place | None:
    """The last two decimal numbers of the name: latitude, then longitude."""
    return _place(_decimals(name))


def from_lon_lat_name(name: str) -> Place | None:
    """The last two decimal numbers of the name: longitude, then latitude."""
    return _place(_decimals(name)[::-1])


def from_xyz_name(name: str) -> Place | None:
    """`Z/X/Y.png` or `Z_X_Y.png` of web maps, rows counted from the north."""
    return _web_tile(name, from_north=True)


def from_tms_name(name: str) -> Place | None:
    """The same with rows counted from the south."""
    return _web_tile(name, from_north=False)


NAMINGS: Mapping[str, Callable[[str], Place | None]] = {
    "satellite": from_satellite_name,
    "comma": from_comma_name,
    "lat-lon": from_lat_lon_name,
    "lon-lat": from_lon_lat_name,
    "xyz": from_xyz_name,
    "tms": from_tms_name,
}


def places_of_names(names: Sequence[str], naming: str) -> dict[str, Place]:
    """Places of all pictures.

    Raises:
        UserError: a name does not have the form, or what it names is no place.
    """
    places, unnamed = {}, []
    for name in names:
        place = NAMINGS[naming](name)
        if place is None:
            unnamed.append(name)
        else:
            places[name] = _checked(place, name)
    if unnamed:
        form = NAMINGS[naming].__doc__.splitlines()[0].rstrip(".")
        raise UserError(
            f"{len(unnamed)} of {len(names)} pictures, such as {unnamed[0]}, do not say in their names where they are "
            f"({naming}: {form}); choose another naming or give a table with the columns file, lat, lon"
        )
    return places


def places_of_table(path: Path, names: Sequence[str]) -> dict[str, Place]:
    """Places from a CSV table with the columns file, lat, lon and, if there is one, metres_per_side.

    Args:
        path: the table.
        names: pictures that need a place; other lines are left aside.

    Raises:
        UserError: the table lacks a column or a picture, has one twice, or a value that cannot be right.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            sample = file.read(4096)
            file.seek(0)
            delimiter = max(",;\t", key=sample.partition("\n")[0].count)
            rows = list(csv.DictReader(file, delimiter=delimiter))
            columns = {(name or "").strip().lower(): name for name in (rows[0] if rows else {})}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"table {path} cannot be read: {error}") from error
    missing = [name for name in ("file", "lat", "lon") if name not in columns]
    if missing:
        raise UserError(f"table {path} has no column {missing[0]}; it needs file, lat, lon, and takes metres_per_side")
    wanted, places = set(names), {}
    for number, row in enumerate(rows, 2):
        name = (row[columns["file"]] or "").strip().replace("\\", "/")
        where = f"table {path}, line {number} ({name})"
        if name not in wanted:
            continue
        if name in places:
            raise UserError(f"{where}: the file is listed twice")
        try:
            latitude, longitude = (float(row[columns[key]]) for key in ("lat", "lon"))
            text = (row.get(columns.get("metres_per_side", "")) or "").strip()
            side = float(text) if text else None
        except (TypeError, ValueError):
            raise UserError(f"{where}: lat, lon and metres_per_side must be numbers") from None
        if side is not None and not (math.isfinite(side) and side > 0):
            raise UserError(f"{where}: metres_per_side must be positive, got {side:g}")
        places[name] = _checked(Place(latitude, longitude, side), where)
    absent = [name for name in names if name not in places]
    if absent:
        raise UserError(f"table {path} has no line for {len(absent)} pictures, such as {absent[0]}")
    return places


def with_sides(places: Mapping[str, Place], pixels: Mapping[str, int], scale: Scale) -> dict[str, Place]:
    """Places whose sides follow from `scale`, where they have none of their own.

    Args:
        places: by name.
        pixels: side of each file.
        scale: what is known of all.
    """
    return {
        name: place if place.side is not None else replace(place, side=scale.side(place.latitude, pixels[name]))
        for name, place in places.items()
    }


def extent(places: Mapping[str, Place]) -> str:
    """Where a gallery lies, for a user to compare."""
    coordinates = np.array([(place.latitude, place.longitude) for place in places.values()])
    low, high = coordinates.min(0), coordinates.max(0)
    across = float(great_circle(low, high)) / 1000
    return f"latitude {low[0]:.5f} to {high[0]:.5f}, longitude {low[1]:.5f} to {high[1]:.5f} ({across:.1f} km across)"


def _decimals(name: str) -> list[str]:
    stem = name.rpartition("/")[2].rpartition(".")[0]
    # A hyphen between two numbers separates them; one after another separator is a sign.
    found = re.findall(rf"(?:(?<=[^\d.])|^){_NUMBER}|(?<=[\d.])(?<!\.)\d+\.\d+", stem)
    return [text for text in found if "." in text][-2:]


def _place(texts: Sequence[str]) -> Place | None:
    try:
        latitude, longitude = (float(text) for text in texts)
    except ValueError:
        return None
    return Place(latitude, longitude)


def _checked(place: Place, what: str) -> Place:
    fault = coordinate_fault(place.latitude, place.longitude)
    if fault is not None:
        raise UserError(f"{what} has {fault}")
    return place


def _web_tile(name: str, from_north: bool) -> Place | None:
    match = _WEB_TILE.search(name)
    if match is None:
        return None
    zoom, column, row = (int(text) for text in match.groups())
    count = 2**zoom
    if column >= count or row >= count:
        return None
    row = row if from_north else count - 1 - row
    longitude = 360 * (column + 0.5) / count - 180
    latitude = math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * (row + 0.5) / count))))
    side = WEB_MERCATOR_PIXEL * 256 * math.cos(math.radians(latitude)) / count
    return Place(latitude, longitude, side)
