"""Cutting an image into a fixed grid of tiles, on which convolutional parts of a method are trained (4K-NeRF)."""

from __future__ import annotations

from typing import NamedTuple


class Tile(NamedTuple):
    """A rectangle of pixels."""

    row: int  # of its first pixel
    column: int
    height: int
    width: int

    def scaled(self, factor: int) -> Tile:
        """The same rectangle in an image whose sides have ``factor`` times as many pixels."""
        return Tile(*(factor * number for number in self))


def tile_grid(height: int, width: int, side: int) -> list[Tile]:
    """Tiles that cover each pixel of an image once: squares, and smaller ones at the right and the lower edge.

    In the released order: the squares column by column, then what remains on the right from top to bottom, then what
    remains below from left to right, then the corner. A side that ``side`` divides leaves no remainder.

    Raises:
        ValueError: ``side`` is not positive.

    Example:
        >>> [tuple(tile) for tile in tile_grid(3, 5, 2)]
        [(0, 0, 2, 2), (0, 2, 2, 2), (0, 4, 2, 1), (2, 0, 1, 2), (2, 2, 1, 2), (2, 4, 1, 1)]
    """
    if side < 1:
        raise ValueError(f"tiles need at least 1 pixel per side, not {side}")
    rows, below = divmod(height, side)
    columns, right = divmod(width, side)
    tiles = [Tile(row * side, column * side, side, side) for column in range(columns) for row in range(rows)]
    if right:
        tiles += [Tile(row * side, columns * side, side, right) for row in range(rows)]
    if below:
        tiles += [Tile(rows * side, column * side, below, side) for column in range(columns)]
    if right and below:
        tiles.append(Tile(rows * side, columns * side, below, right))
    return tiles
