"""Laying stamps onto a picture: surfaces, and the shadows that they cast on what is below."""

from __future__ import annotations

import cv2
import numpy as np

from perception.datasets.synthetic.outlines import Stamp


def lay(canvas: np.ndarray, stamp: Stamp, pixels: np.ndarray) -> None:
    """Paint `pixels` `[h, w, 3]`, given on the stamp's grid, where the stamp covers the canvas `[H, W, 3]`."""
    picture, own = stamp.clip(*canvas.shape[:2])
    alpha = stamp.coverage[own][..., None]
    canvas[picture] += alpha * (pixels[own] - canvas[picture])


def cast_shadow(canvas: np.ndarray, stamp: Stamp, reach: float, light: float) -> None:
    """Darken what lies below on the side away from the light, so that one sees what is in front.

    Args:
        stamp: with a margin of at least twice the reach.
        reach: length of the shadow in pixels.
        light: the direction that light comes from, in radians clockwise from +x.
    """
    shift = np.float32([[1, 0, -0.6 * reach * np.cos(light)], [0, 1, -0.6 * reach * np.sin(light)]])
    height, width = stamp.coverage.shape
    shadow = cv2.warpAffine(cv2.GaussianBlur(stamp.coverage, (0, 0), reach / 3), shift, (width, height))
    picture, own = stamp.clip(*canvas.shape[:2])
    canvas[picture] *= 1 - 0.45 * shadow[own][..., None]
