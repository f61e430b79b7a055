"""A folder of tiles, and where they are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from perception.datasets.images import UnreadableImageError, read_header
from perception.engine.errors import UserError
from perception.inference.images.reader import IMAGE_SUFFIXES
from perception.inference.retrieval.bank import Bank
from perception.inference.retrieval.geotiff import places_of_rasters
from perception.inference.retrieval.places import (
    NAMINGS,
    Place,
    Scale,
    extent,
    places_of_names,
    places_of_table,
    with_sides,
)
from perception.inference.scan import Source, scan

GEOTIFF, NOWHERE = "geotiff", "none"
SOURCES = (*NAMINGS, GEOTIFF, NOWHERE)
"""What can say where tiles are, besides a table."""


@dataclass(frozen=True)
class Gallery:
    """Tiles in their order, and their places by name, without sides as yet; none where nothing says them."""

    tiles: list[Source]
    places: dict[str, Place]
    skipped: dict[str, str]

    def digest(self) -> str:
        """What changes when a file is added, removed or written."""
        lines = "".join(f"{tile.name}\0{tile.file_size}\0{tile.modified()}\n" for tile in self.tiles)
        return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()[:16]

    def sized(self, bank: Bank, scale: Scale, say: Callable[[str], None]) -> dict[str, Place]:
        """Places with sides, of the tiles that are in a bank."""
        pixels = {entry.name: entry.pixels for entry in bank.entries}
        places = with_sides({name: self.places[name] for name in pixels if name in self.places}, pixels, scale)
        for name, place in places.items():
            if place.side is not None:
                pixel = place.side / pixels[name]
                say(f"tiles: {extent(places)}; {name} measures {place.side:.1f} m, {pixel:.4f} m a pixel")
                break
        return places


def read_gallery(
    folder: Path, exclude: Path | None, where: str, table: Path | None, scale: Scale, patterns: Sequence[str] = ()
) -> Gallery:
    """Looks at a gallery before anything is encoded.

    Args:
        folder: the tiles.
        exclude: a folder that is not entered.
        where: one of `SOURCES`; a table counts instead.
        table: see :func:`~perception.inference.retrieval.places.places_of_table`.
        scale: how large tiles are.
        patterns: shell patterns of the files to take.

    Raises:
        UserError: there are no tiles, or their places cannot be known.
    """
    if not folder.is_dir():
        raise UserError(f"gallery {folder} is not a folder")
    found = scan(folder, IMAGE_SUFFIXES, patterns, exclude)
    if not found.sources:
        raise UserError(f"gallery {folder} holds no images ({len(found.ignored)} other files)")
    names = [tile.name for tile in found.sources]
    if table is not None:
        places = places_of_table(table, names)
    elif where == NOWHERE:
        places = {}
    elif where == GEOTIFF:
        places = places_of_rasters({tile.name: tile.path for tile in found.sources})
    else:
        places = places_of_names(names, where)
    if places and scale == Scale() and all(place.side is None for place in places.values()):
        raise UserError(
            "nothing says how large the tiles are: give --metres-per-pixel, or --zoom (VIGOR's tiles have 20), or a "
            "column metres_per_side in --places; --where none leaves coordinates out"
        )
    _check_first_squares(found.sources)
    return Gallery(found.sources, places, found.skipped)


def _check_first_squares(tiles: Sequence[Source], looked_at: int = 20) -> None:
    """Refuses a folder that is plainly no gallery, such as one of panoramas.

    Raises:
        UserError: none of the first readable files is square.
    """
    shapes: Mapping[str, tuple[int, int]] = {}
    for tile in tiles[:looked_at]:
        try:
            header = read_header(tile.path)
        except UnreadableImageError:
            continue
        shapes = {**shapes, tile.name: (header.width, header.height)}
    if shapes and all(width != height for width, height in shapes.values()):
        name, (width, height) = next(iter(shapes.items()))
        raise UserError(f"the gallery's tiles must be square, but {name} has {width} x {height} pixels, and so on")
