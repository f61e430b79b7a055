"""Annotation files of Pascal VOC, one XML file an image.

Corners are those of the first and the last pixel of an object, counted from 1 in VOC itself and from 0 in many sets
that only look like it: ``base`` is the number of the first pixel. A box of ours begins at the outer edge of the first
pixel and ends at that of the last: of an image 10 pixels wide, 1 to 10 becomes 0 to 10.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from perception.engine.errors import UserError

Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class VocObject:
    """An object as stated: its class, `corners` (xmin, ymin, xmax, ymax), and whether evaluation leaves it out."""

    name: str
    corners: Corners
    difficult: bool


@dataclass(frozen=True)
class VocImage:
    """Of one file: the image's size in pixels, None where it is not stated, and its objects."""

    size: tuple[int, int] | None
    objects: tuple[VocObject, ...]


def read_voc(path: str | Path) -> VocImage:
    """What a file states.

    Raises:
        UserError: it is missing, no XML, or a number or name in it is missing or none; the sentence names the file.
    """
    try:
        root = ET.parse(path).getroot()
    except OSError as error:
        raise UserError(f"labels {path} cannot be read: {error.strerror}") from error
    except ET.ParseError as error:
        raise UserError(f"labels {path} are not XML: {error}") from error
    try:
        objects = tuple(_object(entry) for entry in root.findall("object"))
        size = root.find("size")
        sides = None if size is None else (int(_number(size, "width")), int(_number(size, "height")))
    except ValueError as error:
        raise UserError(f"labels {path} are not of Pascal VOC's format: {error}") from error
    return VocImage(sides if sides and min(sides) > 0 else None, objects)


def box_of(corners: Corners, base: int) -> Corners:
    """Corners as a box (x1, y1, x2, y2) of continuous coordinates, not before the image's edge.

    Args:
        corners: as a file states them.
        base: number of the first pixel.

    Example:
        >>> box_of((1, 1, 10, 10), base=1), box_of((0, 0, 9, 9), base=0)
        ((0, 0, 10, 10), (0, 0, 10, 10))
    """
    x1, y1, x2, y2 = corners
    return max(0, x1 - base), max(0, y1 - base), x2 - base + 1, y2 - base + 1


def before_the_first(objects: Iterable[VocObject], base: int) -> int:
    """How many objects begin before the pixel of number ``base``: files that count from it cannot have any."""
    return sum(min(item.corners[:2]) < base for item in objects)


def _object(entry: ET.Element) -> VocObject:
    name = (entry.findtext("name") or "").strip()
    if not name:
        raise ValueError("an object has no name")
    box = entry.find("bndbox")
    if box is None:
        raise ValueError(f"object {name!r} has no bndbox")
    x1, y1, x2, y2 = (_number(box, key) for key in ("xmin", "ymin", "xmax", "ymax"))
    if x2 < x1 or y2 < y1:
        raise ValueError(f"the box of an object {name!r} ends before it begins: {x1:g}, {y1:g}, {x2:g}, {y2:g}")
    difficult = (entry.findtext("difficult") or "").strip() or "0"
    if difficult not in ("0", "1"):
        raise ValueError(f"'difficult' of an object {name!r} is {difficult!r}, neither 0 nor 1")
    return VocObject(name, (x1, y1, x2, y2), difficult == "1")


def _number(entry: ET.Element, key: str) -> float:
    text = (entry.findtext(key) or "").strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{entry.tag} has no number as {key}: {text!r}")
    return int(value) if value == int(value) else value
