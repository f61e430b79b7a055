"""VIGOR's lists: satellite tiles, and panoramas with the tiles that cover them.

Two layouts are known: the one of the revised labels, which every figure in metres should use, and the one of
Sample4Geo's scripts. Another layout is given by templates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from perception.datasets.demo_data import how_to_make
from perception.engine.errors import UserError
from perception.geometry.geodesy import coordinate_fault

CITIES = ("Chicago", "NewYork", "SanFrancisco", "Seattle")
"""In the order of tile numbers."""

METRES_PER_PIXEL = {"Chicago": 0.111262, "NewYork": 0.113248, "SanFrancisco": 0.118141, "Seattle": 0.100817}
"""Of the tiles at 640 pixels."""

LABEL_SIZE = 640
PROTOCOLS = {
    "same_area": {"train": CITIES, "test": CITIES},
    "cross_area": {"train": ("NewYork", "Seattle"), "test": ("Chicago", "SanFrancisco")},
}


@dataclass(frozen=True)
class Layout:
    """Paths below the root, with the placeholders {city}, {name} and {list}."""

    panorama: str = "{city}/panorama/{name}"
    satellite: str = "{city}/satellite/{name}"
    lists: str = "splits_new/{city}/{list}.txt"


LAYOUTS = {
    "splits_new": Layout(),
    "splits": Layout(lists="splits/{city}/{list}.txt"),
    "sample4geo": Layout("ground/{city}/{name}", "satellite/{city}/{name}", "splits/{city}/{list}.txt"),
}


@dataclass(frozen=True)
class Tile:
    """A satellite tile. `latitude` and `longitude` are of its centre, in degrees."""

    city: str
    name: str
    path: Path
    latitude: float
    longitude: float


@dataclass(frozen=True)
class Pair:
    """A panorama and what covers it.

    Attributes:
        panorama: its path.
        city: where it is.
        tiles: numbers of the positive tile and of the three semi-positives.
        offsets: (4, 2) VIGOR's (d_row, d_col) to each, in pixels at 640: positive below, and to the left of the centre.
    """

    panorama: Path
    city: str
    tiles: tuple[int, int, int, int]
    offsets: np.ndarray = field(compare=False)


@dataclass(frozen=True)
class Vigor:
    """Gallery and pairs of one split."""

    tiles: tuple[Tile, ...]
    pairs: tuple[Pair, ...]

    def coordinates(self) -> np.ndarray:
        """(T, 2) latitudes and longitudes of the tiles in degrees."""
        return np.array([(tile.latitude, tile.longitude) for tile in self.tiles])


def read_vigor(
    root: str | Path,
    split: str,
    *,
    protocol: str = "same_area",
    layout: str | Mapping[str, str] = "splits_new",
    cities: Sequence[str] | None = None,
) -> Vigor:
    """Reads a split.

    Args:
        root: the data set's folder.
        split: "train" or "test".
        protocol: "same_area" (all cities in both splits; lists same_area_balanced_*) or "cross_area" (New York and
            Seattle against Chicago and San Francisco; list pano_label_balanced).
        layout: a key of `LAYOUTS`, or templates by the names of `Layout`'s fields.
        cities: other cities than the protocol's, in the order of tile numbers.

    Raises:
        UserError: a list is missing, or a line in it cannot be right.
        ValueError: unknown split, protocol or layout.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    if isinstance(layout, str) and layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)} or templates, got {layout!r}")
    paths = LAYOUTS[layout] if isinstance(layout, str) else Layout(**layout)
    wanted = f"same_area_balanced_{split}" if protocol == "same_area" else "pano_label_balanced"
    root = Path(root)
    tiles: list[Tile] = []
    pairs: list[Pair] = []
    for city in cities or PROTOCOLS[protocol][split]:
        listing = root / paths.lists.format(city=city, list="satellite_list")
        numbers: dict[str, int] = {}
        for number, line in _lines(listing):
            name = line.strip()
            if name in numbers:
                raise UserError(f"{listing}, line {number}: tile {name} is listed twice")
            numbers[name] = len(tiles)
            path = root / paths.satellite.format(city=city, name=name)
            tiles.append(Tile(city, name, path, *tile_coordinates(name, f"{listing}, line {number}")))
        listing = root / paths.lists.format(city=city, list=wanted)
        for number, line in _lines(listing):
            where = f"{listing}, line {number}"
            name, covering, offsets = _parse(line, numbers, where)
            path = root / paths.panorama.format(city=city, name=name)
            pairs.append(Pair(path, city, covering, offsets))
    return Vigor(tuple(tiles), tuple(pairs))


def tile_coordinates(name: str, where: str) -> tuple[float, float]:
    """Latitude and longitude in a name like `satellite_LAT_LON.png`.

    Raises:
        UserError: there are none, or they are no place on Earth.
    """
    parts = name.rpartition(".")[0].split("_")
    try:
        latitude, longitude = (float(part) for part in parts[1:3])
    except ValueError:
        raise UserError(f"{where}: {name} does not have the form satellite_LATITUDE_LONGITUDE.png") from None
    fault = coordinate_fault(latitude, longitude)
    if fault is not None:
        raise UserError(f"{where}: tile {name} has {fault}")
    return latitude, longitude


def _lines(path: Path) -> list[tuple[int, str]]:
    """Lines that are not empty, with their numbers."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        command = how_to_make(path)
        pages = "docs/data.md shows the layouts of VIGOR that are understood"
        raise UserError(f"{path} is missing; {f'make it with: {command}' if command else pages}") from None
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise UserError(f"{path} is empty")
    return lines


def _parse(line: str, numbers: Mapping[str, int], where: str) -> tuple[str, tuple[int, int, int, int], np.ndarray]:
    parts = line.split()
    if len(parts) < 13:
        raise UserError(
            f"{where}: 13 columns are needed (panorama, then tile, row, column four times), got {len(parts)}"
        )
    names = parts[1:13:3]
    unknown = [name for name in names if name not in numbers]
    if unknown:
        raise UserError(f"{where}: tile {unknown[0]} is not in satellite_list.txt")
    try:
        offsets = np.array([[float(parts[k]), float(parts[k + 1])] for k in range(2, 13, 3)])
    except ValueError:
        raise UserError(f"{where}: an offset is not a number") from None
    if not np.isfinite(offsets).all():
        raise UserError(f"{where}: an offset is not a finite number")
    if np.abs(offsets[0]).max() > LABEL_SIZE / 2:
        raise UserError(
            f"{where}: the positive tile's offset {tuple(offsets[0])} lies outside the tile; offsets are pixels at "
            f"{LABEL_SIZE} x {LABEL_SIZE}"
        )
    return parts[0], tuple(numbers[name] for name in names), offsets
