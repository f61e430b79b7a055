"""A picture of what was found: the panorama, the best tiles below it, and the heat map on the best."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from perception.inference.retrieval.ranking import Found

_TILE, _GAP, _TEXT = 220, 10, 18
_PAPER, _INK, _MARK = (250, 250, 248), (30, 30, 30), (255, 255, 255)


def draw(panorama: np.ndarray, found: Found) -> Image.Image:
    """The picture.

    Args:
        panorama: uint8 (height, width, 3).
        found: what was found for it.
    """
    count = max(1, len(found.tiles))
    width = count * (_TILE + _GAP) + _GAP
    height = round(panorama.shape[0] * (width - 2 * _GAP) / panorama.shape[1])
    picture = Image.new("RGB", (width, height + _TILE + 3 * _GAP + 2 * _TEXT), _PAPER)
    picture.paste(Image.fromarray(panorama).resize((width - 2 * _GAP, height), Image.Resampling.LANCZOS), (_GAP, _GAP))
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    top = height + 2 * _GAP
    for number, (tile, match) in enumerate(zip(found.tiles, found.matches)):
        left = _GAP + number * (_TILE + _GAP)
        pixels = cv2.resize(tile, (_TILE, _TILE), interpolation=cv2.INTER_AREA)
        picture.paste(Image.fromarray(_heated(pixels, found.fix.heatmap) if number == 0 else pixels), (left, top))
        extra = "" if match.rerank is None else f" + {match.rerank:.3f}"
        pen.text((left, top + _TILE + 2), f"{number + 1}.  {match.similarity:.3f}{extra}", _INK, font)
        pen.text((left, top + _TILE + 2 + _TEXT), _shortened(match.name, pen, font), _INK, font)
    x, y = (_TILE * (0.5 + share) for share in (found.fix.right, found.fix.down))
    _cross(pen, _GAP + x, top + y)
    return picture


def _heated(pixels: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """A tile with probabilities on it, the largest as strong as can be."""
    strength = cv2.resize(heatmap / max(float(heatmap.max()), 1e-12), pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
    colours = cv2.applyColorMap((255 * strength).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    share = (0.75 * np.sqrt(strength))[..., None]
    return ((1 - share) * pixels + share * colours).astype(np.uint8)


def _cross(pen: ImageDraw.ImageDraw, x: float, y: float) -> None:
    for colour, width in ((_INK, 4), (_MARK, 2)):
        pen.line([(x - 9, y), (x + 9, y)], colour, width)
        pen.line([(x, y - 9), (x, y + 9)], colour, width)


def _shortened(name: str, pen: ImageDraw.ImageDraw, font: ImageFont.ImageFont) -> str:
    """The end of a name, as far as it fits."""
    if pen.textlength(name, font) <= _TILE:
        return name
    while name and pen.textlength("…" + name, font) > _TILE:
        name = name[1:]
    return "…" + name
