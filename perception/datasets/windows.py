"""Windows of images, for what works on a part at a time."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Protocol

import numpy as np

from perception.datasets.images import read_image


@dataclass(frozen=True)
class Window:
    """A rectangle of whole pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.left + self.width

    @property
    def bottom(self) -> int:
        return self.top + self.height


class ImageWindows(Protocol):
    """An open image file of `width` x `height` pixels, upright."""

    width: int
    height: int

    def read(self, window: Window) -> np.ndarray:
        """Pixels of a window, uint8 (height, width, 3) RGB. Windows come from the top down.

        Raises:
            UnreadableImageError: the file cannot be read there.
        """
        ...

    def close(self) -> None:
        """Frees the file and what is in memory of it."""
        ...


class WholeImage:
    """Windows of an image that is decoded at once.

    Raises:
        UnreadableImageError: the file cannot be read.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._pixels = read_image(path)
        self.height, self.width = self._pixels.shape[:2]

    def read(self, window: Window) -> np.ndarray:
        """See `ImageWindows`."""
        return self._pixels[window.top : window.bottom, window.left : window.right]

    def close(self) -> None:
        """See `ImageWindows`."""
        del self._pixels
