"""Outlines as polygons, and their antialiased coverage of pixels.

An outline is a tuple of closed rings, each `[N, 2]` points (x, y); a point inside an odd number of rings belongs to the
shape, so that an inner ring is a hole. Pixel (column i, row j) covers the square [i, i+1] x [j, j+1].
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

Outline = tuple[np.ndarray, ...]

_SUPERSAMPLE = 4
_SUBPIXEL_BITS = 4  # cv2 takes fixed-point vertices


def regular_polygon(corners: int, radius: float = 1.0) -> np.ndarray:
    """`[corners, 2]` points on a circle around the origin, the first one straight up (negative y)."""
    turn = 2 * np.pi * np.arange(corners) / corners
    return radius * np.stack([np.sin(turn), -np.cos(turn)], axis=1)


def star_polygon(points: int, inner: float) -> np.ndarray:
    """`[2 * points, 2]`: tips on the unit circle, notches on a circle of radius `inner`."""
    polygon = regular_polygon(2 * points)
    polygon[1::2] *= inner
    return polygon


def cross_polygon(arm: float) -> np.ndarray:
    """`[12, 2]`: a plus sign in the square [-1, 1]^2 whose arms are `2 * arm` wide."""
    quarter = np.array([[arm, -1.0], [arm, -arm], [1.0, -arm]])
    turns = [np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) for a in np.arange(4) * np.pi / 2]
    return np.concatenate([quarter @ turn for turn in turns])


def posed(outline: Outline, *, centre: tuple[float, float], size: float, angle: float) -> Outline:
    """Turn an outline by `angle` (radians, clockwise on screen), then make its box `size` pixels on the longer side.

    The box, not the origin, is centred on `centre` (x, y).
    """
    cos, sin = np.cos(angle), np.sin(angle)
    turned = [ring @ np.array([[cos, sin], [-sin, cos]]) for ring in outline]
    points = np.concatenate(turned)
    low, high = points.min(axis=0), points.max(axis=0)
    scale = size / (high - low).max()
    return tuple((ring - (low + high) / 2) * scale + np.asarray(centre) for ring in turned)


@dataclass(frozen=True)
class Stamp:
    """Coverage of an outline on its own small grid: `coverage` `[h, w]` in [0, 1], upper left pixel at (`x`, `y`).

    The grid may reach over the picture's border.
    """

    x: int
    y: int
    coverage: np.ndarray

    def clip(self, height: int, width: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Slices (rows, columns) of a `[height, width]` picture and of `coverage` that lie on each other."""
        h, w = self.coverage.shape
        top, left = max(self.y, 0), max(self.x, 0)
        bottom, right = max(min(self.y + h, height), top), max(min(self.x + w, width), left)
        picture = (slice(top, bottom), slice(left, right))
        own = (slice(top - self.y, bottom - self.y), slice(left - self.x, right - self.x))
        return picture, own


def rasterise(outline: Outline, *, margin: int = 1) -> Stamp:
    """Share of every pixel that the outline covers, on a grid that surrounds it with `margin` empty pixels."""
    points = np.concatenate(outline)
    x, y = np.floor(points.min(axis=0)).astype(int) - margin
    right, bottom = np.ceil(points.max(axis=0)).astype(int) + margin
    width, height = right - x, bottom - y
    # Sample (column i) lies at (i + 1/2) / SUPERSAMPLE, and cv2's integer coordinates are sample centres.
    fixed_point = [
        np.round(((ring - (x, y)) * _SUPERSAMPLE - 0.5) * 2**_SUBPIXEL_BITS).astype(np.int32) for ring in outline
    ]
    samples = np.zeros((height * _SUPERSAMPLE, width * _SUPERSAMPLE), np.uint8)
    cv2.fillPoly(samples, fixed_point, 255, shift=_SUBPIXEL_BITS)
    coverage = cv2.resize(samples, (width, height), interpolation=cv2.INTER_AREA)
    return Stamp(int(x), int(y), coverage.astype(np.float32) / 255)
