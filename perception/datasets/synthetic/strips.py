"""Long straight structures seen from above: decks of bridges, jetties, breakwaters, concrete tracks.

A strip fills the rotated rectangle of its `centre`, `length`, `width` and `angle` exactly. It may be as long as the
picture, so it is painted in its own frame and laid onto the blocks of the canvas that it touches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from perception.datasets.synthetic import textures
from perception.datasets.synthetic.aerial import Point
from perception.datasets.synthetic.textures import Colour

_BLOCK = 512  # pixels of the canvas that are painted at a time
_MARGIN = 2  # pixels without anything around a strip in its own frame


@dataclass(frozen=True)
class Strip:
    """A rectangle with a surface.

    Lengths are in pixels; the angle, in radians clockwise as seen, is that of the long side. `height` is how far its
    shadow falls; `lanes` whether it has a dashed middle line, `bays` the distance of its cross girders, 0 for none.
    """

    centre: Point
    length: float
    width: float
    angle: float
    colour: Colour
    rim: Colour
    height: float
    lanes: bool
    bays: float
    texture_seed: int

    def at(self, along: float, across: float) -> Point:
        """From the strip's own coordinates, whose origin is its centre, to pixels."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return (
            float(self.centre[0] + along * cos - across * sin),
            float(self.centre[1] + along * sin + across * cos),
        )

    def corners(self) -> np.ndarray:
        """`[4, 2]` corners (x, y), clockwise as seen."""
        half_length, half_width = self.length / 2, self.width / 2
        signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
        return np.array([self.at(along * half_length, across * half_width) for along, across in signs])


def draw_strip(canvas: np.ndarray, strip: Strip, light: float) -> None:
    """Paint a strip and its shadow onto `float32` `[H, W, 3]`; light comes from `light`, radians clockwise from +x."""
    coverage, pixels = _in_own_frame(strip)
    if strip.height:
        shift = -strip.height * np.array([np.cos(light), np.sin(light)])
        for block, part in _blocks(canvas, strip, coverage, shift):
            block *= 1 - 0.45 * part[..., None]
    painted = np.concatenate([pixels * coverage[..., None], coverage[..., None]], axis=2)
    for block, part in _blocks(canvas, strip, painted, np.zeros(2)):
        # Colours are weighted by coverage already, so that nothing of the margin's colour gets into the edges.
        block *= 1 - part[..., 3:]
        block += part[..., :3]


def _in_own_frame(strip: Strip) -> tuple[np.ndarray, np.ndarray]:
    """Coverage `[h, w]` and colours `[h, w, 3]` with the length along the columns and a margin all around."""
    width, height = (int(np.ceil(side)) + 2 * _MARGIN for side in (strip.length, strip.width))
    along = np.abs(np.arange(width, dtype=np.float32) + 0.5 - width / 2)
    across = np.abs(np.arange(height, dtype=np.float32) + 0.5 - height / 2)
    from_end, from_side = strip.length / 2 - along, strip.width / 2 - across
    coverage = np.clip(from_side + 0.5, 0, 1)[:, None] * np.clip(from_end + 0.5, 0, 1)
    rng = np.random.default_rng(strip.texture_seed)
    wear = textures.value_noise(rng, height, width, cell=max(strip.width, 8.0), octaves=3)
    pixels = np.float32(strip.colour) * (0.92 + 0.16 * wear)[..., None]
    if strip.bays:
        girders = np.arange(width, dtype=np.float32) % np.float32(strip.bays) < 2
        pixels[:, girders] *= 0.72
    if strip.lanes:
        rows = np.flatnonzero(across < max(strip.width / 40, 0.6))
        dashes = np.flatnonzero(np.arange(width) % 24 < 12)
        pixels[np.ix_(rows, dashes)] = (0.85, 0.85, 0.8)
    pixels[from_side < max(strip.width / 12, 1.0)] = strip.rim
    return coverage.astype(np.float32), pixels.astype(np.float32)


def _blocks(
    canvas: np.ndarray, strip: Strip, own: np.ndarray, shift: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of the canvas that a strip touches, and what lies on each of them of `own`, given in its frame."""
    cos, sin = np.cos(strip.angle), np.sin(strip.angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    centre = np.asarray(strip.centre) + shift
    reach = strip.width / 2 + _BLOCK
    for top in range(0, canvas.shape[0], _BLOCK):
        for left in range(0, canvas.shape[1], _BLOCK):
            block = canvas[top : top + _BLOCK, left : left + _BLOCK]
            along, across = (np.array([left, top]) + _BLOCK / 2 - centre) @ turn
            if abs(across) > reach or abs(along) > strip.length / 2 + reach:
                continue
            # Whole numbers are centres of pixels for cv2, and corners of pixels here.
            middle = np.array([own.shape[1], own.shape[0]]) / 2 - 0.5
            offset = centre - (left, top) - 0.5 - turn @ middle
            size = (block.shape[1], block.shape[0])
            yield block, cv2.warpAffine(own, np.column_stack([turn, offset]), size, flags=cv2.INTER_LINEAR)
