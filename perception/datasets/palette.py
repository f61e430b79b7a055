"""Colours of classes, where a data set gives none."""

from __future__ import annotations

import colorsys
import math

Colour = tuple[int, int, int]


def default_palette(count: int) -> list[Colour]:
    """`count` strong colours; neighbours in the list are far apart in hue."""
    golden = (math.sqrt(5) - 1) / 2
    colours = []
    for index in range(count):
        red, green, blue = colorsys.hsv_to_rgb((0.58 + index * golden) % 1, 0.85 - 0.25 * (index % 3 == 1), 0.95)
        colours.append((round(red * 255), round(green * 255), round(blue * 255)))
    return colours
