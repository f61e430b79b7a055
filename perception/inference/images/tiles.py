"""How a huge image is cut into overlapping tiles."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from perception.datasets.windows import Window


@dataclass(frozen=True)
class Tiling:
    """Tiles of `size` x `size` pixels, of which neighbours share at least `overlap`.

    Raises:
        ValueError: the overlap is not smaller than the tile.
    """

    size: int
    overlap: int

    def __post_init__(self):
        if not 0 <= self.overlap < self.size:
            raise ValueError(f"the overlap must be at least 0 and below the tile's {self.size}, not {self.overlap}")


@dataclass(frozen=True)
class Tile:
    """A window that the model sees, and the core: the part of it that no other tile's core has."""

    window: Window
    core: Window


def tiles(width: int, height: int, tiling: Tiling) -> list[Tile]:
    """Tiles that cover an image, row by row.

    All are of one size, that of a tile or of the image where that is smaller: the last ones of a row or column are
    moved back to the border. Cores meet in the middle of what neighbours share.
    """
    columns, rows = _spans(width, tiling), _spans(height, tiling)
    return [
        Tile(
            Window(left, top, min(tiling.size, width), min(tiling.size, height)),
            Window(core_left, core_top, core_right - core_left, core_bottom - core_top),
        )
        for top, core_top, core_bottom in rows
        for left, core_left, core_right in columns
    ]


def cut_sides(
    bounds: np.ndarray, window: Window, width: int, height: int, margin: float | np.ndarray = 2.0
) -> np.ndarray:
    """Which boxes reach which edges of a window behind which the image goes on.

    What lies there is likely a part of an object that another tile shows whole.

    Args:
        bounds: (N, 4) xyxy in the image.
        window: of the image, which has `width` x `height` pixels.
        margin: boxes that end fewer pixels before an edge reach it, too; (N, 2) across and down, or one for all.

    Returns:
        (N, 4) bool: left, top, right, bottom.
    """
    x1, y1, x2, y2 = bounds.T
    across, down = np.broadcast_to(margin, (len(bounds), 2)).T
    return np.stack(
        [
            (x1 < window.left + across) & (window.left > 0),
            (y1 < window.top + down) & (window.top > 0),
            (x2 > window.right - across) & (window.right < width),
            (y2 > window.bottom - down) & (window.bottom < height),
        ],
        1,
    )


def _spans(length: int, tiling: Tiling) -> list[tuple[int, int, int]]:
    """Start of each tile along one axis, and start and end of its core."""
    last = max(0, length - tiling.size)
    starts = [*range(0, last, tiling.size - tiling.overlap), last]
    # The middle between the start of a tile and the end of the one before.
    borders = [0] + [(start + before + tiling.size) // 2 for before, start in pairwise(starts)] + [length]
    return list(zip(starts, borders, borders[1:]))
