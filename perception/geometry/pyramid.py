"""The dynamic image pyramid: levels of an image, windows over them, and what a patch sees of the reduced levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perception.geometry.windows import sliding_windows, with_enough_image

PATCH, GAP = 1024, 200
"""Side of the windows and overlap of neighbours in pixels, on every level."""
IMAGE_SHARE = 0.6
"""Windows of which no larger share is image are left out, unless all are alike."""


@dataclass(frozen=True)
class Level:
    """An image reduced by a power of two.

    Attributes:
        factor: of the reduction; 1 for the image itself.
        width, height: in pixels of the level.
    """

    factor: int
    width: int
    height: int

    def windows(self, size: int = PATCH, gap: int = GAP, image_share: float = IMAGE_SHARE) -> np.ndarray:
        """Windows (x1, y1, x2, y2) ``[W, 4]`` over the level; see ``perception.geometry.windows``."""
        windows = sliding_windows(self.width, self.height, size, gap)
        return with_enough_image(windows, self.width, self.height, image_share)


def pyramid(width: int, height: int, size: int = PATCH) -> list[Level]:
    """The image and its halves, until one fits into a window: the native level first (spec: no level of a small image
    but itself).

    Example:
        >>> [(level.factor, level.width) for level in pyramid(3008, 1000)]
        [(1, 3008), (2, 1504), (4, 752)]
    """
    levels = [Level(1, width, height)]
    while max(width, height) / levels[-1].factor > size:
        factor = 2 * levels[-1].factor
        levels.append(Level(factor, max(width // factor, 1), max(height // factor, 1)))
    return levels


@dataclass(frozen=True)
class Context:
    """A crop of a reduced image, around a patch of the native one.

    Attributes:
        factor: of the reduction.
        left, top, width, height: of the crop, in pixels of the reduced image; it may reach beyond the image.
        inside: where the patch lies in the crop, as shares (left, top, right, bottom) of its width and height.
    """

    factor: int
    left: int
    top: int
    width: int
    height: int
    inside: tuple[float, float, float, float]

    def flipped(self, direction: str) -> Context:
        """The same after crop and patch were flipped.

        Args:
            direction: "horizontal", "vertical" or "diagonal" (both).

        Raises:
            ValueError: another direction.
        """
        if direction not in ("horizontal", "vertical", "diagonal"):
            raise ValueError(f"direction must be horizontal, vertical or diagonal, not {direction!r}")
        left, top, right, bottom = self.inside
        if direction != "vertical":
            left, right = 1 - right, 1 - left
        if direction != "horizontal":
            top, bottom = 1 - bottom, 1 - top
        return Context(self.factor, self.left, self.top, self.width, self.height, (left, top, right, bottom))


def contexts_of(
    width: int, height: int, x: int, y: int, size: int = PATCH, max_levels: int | None = 2
) -> list[Context]:
    """The crops of reduced images that go with a patch in training.

    If half the image fits into a window, that is the only one; where the image is smaller than the patch, it reaches
    beyond the image as the patch does. Else there is one around the patch for each reduction that leaves an image of at
    least a window's side; it is moved into the image where that is large enough.

    Args:
        width, height: of the native image.
        x, y: top left corner of the patch.
        size: side of the patch, and of the crops.
        max_levels: at most so many, the least reduced ones; the released detector uses 2. None for all.
    """
    if max(width, height) // 2 <= size:
        half_width, half_height = max(width, x + size) // 2, max(height, y + size) // 2
        return [_context(2, 0, 0, half_width, half_height, x, y, size)]
    contexts, factor = [], 2
    while max(width, height) / factor >= size and (max_levels is None or len(contexts) < max_levels):
        left = _centred(x, factor, size, width // factor)
        top = _centred(y, factor, size, height // factor)
        contexts.append(_context(factor, left, top, size, size, x, y, size))
        factor *= 2
    return contexts


def _centred(start: int, factor: int, size: int, length: int) -> int:
    """Start of a crop whose middle is the patch's, moved into an image of that length if it fits."""
    crop = int(start / factor - (size - size / factor) / 2)
    return min(max(crop, 0), length - size) if length >= size else crop


def _context(factor: int, left: int, top: int, width: int, height: int, x: int, y: int, size: int) -> Context:
    # Of an image of odd size the last column has no place in the reduced one.
    across, down, side = (x / factor - left) / width, (y / factor - top) / height, size / factor
    inside = (across, down, min(across + side / width, 1.0), min(down + side / height, 1.0))
    return Context(factor, left, top, width, height, inside)
