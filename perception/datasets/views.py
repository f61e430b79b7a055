"""Panoramas and satellite tiles from their files.

Worker processes of folder inference import this module, so it imports nothing heavy.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import cv2
import numpy as np

from .images import UnreadableImageError, read_image

_ASPECT_TOLERANCE = 0.01


def read_panorama(path: str | os.PathLike[str]) -> np.ndarray:
    """A full panorama, uint8 (height, width, 3).

    Raises:
        UnreadableImageError: it cannot be read, or does not cover the sphere (width twice the height, within 1 %).
    """
    pixels = read_image(path)
    height, width = pixels.shape[:2]
    if abs(width / (2 * height) - 1) > _ASPECT_TOLERANCE:
        raise UnreadableImageError(f"no full panorama: {width} x {height} pixels instead of 2 : 1")
    return pixels


def read_tile(path: str | os.PathLike[str]) -> np.ndarray:
    """A square satellite tile, uint8 (side, side, 3).

    Raises:
        UnreadableImageError: it cannot be read, or is not square.
    """
    pixels = read_image(path)
    height, width = pixels.shape[:2]
    if height != width:
        raise UnreadableImageError(f"no square tile: {width} x {height} pixels")
    return pixels


def resize(pixels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Pixels at another size (height, width), as the published weights had them in training."""
    return cv2.resize(pixels, (size[1], size[0]), interpolation=cv2.INTER_LINEAR_EXACT)
