"""Which bands of a raster are red, green and blue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

COLOURS = ("red", "green", "blue")


@dataclass(frozen=True)
class Bands:
    """The bands that a model sees, from 1: three, or one that is grey; and what a user should know of the choice."""

    indexes: tuple[int, ...]
    remark: str = ""


def choose_bands(
    colours: Sequence[str], descriptions: Sequence[str | None], wanted: Sequence[int] | None = None
) -> Bands:
    """By the user's choice, else by what the file says of its bands, else the first three, or one.

    Args:
        colours: GDAL's colour interpretation of each band, such as "red", "alpha" or "undefined".
        descriptions: what each band is called, if it is.
        wanted: the user's choice, from 1.

    Raises:
        ValueError: there is no such band, or none that could be seen; the message is the reason.
    """
    if wanted is not None:
        for band in wanted:
            if not 1 <= band <= len(colours):
                raise ValueError(f"it has {len(colours)} bands, so there is no band {band}")
        return Bands(tuple(wanted))
    for names in (colours, [(text or "").strip().lower() for text in descriptions]):
        if all(names.count(colour) for colour in COLOURS):
            return Bands(tuple(names.index(colour) + 1 for colour in COLOURS))
    seen = [index + 1 for index, colour in enumerate(colours) if colour != "alpha"]
    if not seen:
        raise ValueError("it has no band but alpha")
    if len(seen) in (1, 3):
        return Bands(tuple(seen))
    if len(seen) > 3:
        return Bands(tuple(seen[:3]), _unsaid(len(colours), f"{seen[0]}, {seen[1]}, {seen[2]} are red, green and blue"))
    return Bands((seen[0],), _unsaid(len(colours), f"{seen[0]} is shown in grey"))


def _unsaid(count: int, assumed: str) -> str:
    return f"it does not say which of its {count} bands are colours, so that {assumed}"
