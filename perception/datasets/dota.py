"""DOTA's text formats: label files, and names of patches that were cut from an image."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.datasets.class_names import near_miss

_HEADERS = ("imagesource", "gsd")
_PATCH = re.compile(r"(?P<image>.+)__(?P<size>\d+)__(?P<x>\d+)___(?P<y>\d+)")


@dataclass(frozen=True)
class Labels:
    """The objects of one image: `corners` `[N, 4, 2]` pixels (x, y) in float64, N class names, N difficulties."""

    corners: np.ndarray
    classes: tuple[str, ...]
    difficulty: tuple[int, ...]


def read_labels(path: str | Path) -> Labels:
    """Read a label file, with or without the header lines `imagesource:` and `gsd:`.

    An object is a line `x1 y1 x2 y2 x3 y3 x4 y4 class difficulty`, or the same with a comma behind each of these, as
    other tools write it; a missing difficulty is 0.

    Raises:
        ValueError: a line is something else, or not UTF-8.
        OSError: the file cannot be read.
    """
    corners, classes, difficulty = [], [], []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip() or line.startswith(_HEADERS):
            continue
        # A decimal comma leaves two numbers between commas, which are no number.
        items = [item.strip() for item in line.strip().removesuffix(",").split(",")] if "," in line else line.split()
        try:
            values = [float(item) for item in items[:8]]
            level = int(items[9]) if len(items) > 9 else 0
        except ValueError:
            values = []
        if len(values) != 8 or len(items) not in (9, 10) or not items[8] or not np.isfinite(values).all():
            raise ValueError(f"{path}, line {number}: expected 8 coordinates, a class and a difficulty, not {line!r}")
        corners.append(values)
        classes.append(items[8])
        difficulty.append(level)
    return Labels(np.array(corners, np.float64).reshape(-1, 4, 2), tuple(classes), tuple(difficulty))


def read_lines(path: str | Path) -> list[str]:
    """The lines of a UTF-8 file, with or without a byte order mark.

    Raises:
        ValueError: it is not UTF-8.
        OSError: the file cannot be read.
    """
    try:
        return Path(path).read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {number}: not UTF-8 ({error.reason})") from error


def class_numbers(labels: Labels, classes: Sequence[str], path: str | Path) -> np.ndarray:
    """The place `[N]` of each object's class in `classes`.

    Args:
        path: of the labels, for the message.

    Raises:
        ValueError: an object is of another class.
    """
    known = {name: number for number, name in enumerate(classes)}
    strange = sorted(set(labels.classes) - known.keys())
    if strange:
        near = near_miss(strange[0], known)
        meant = f" ({near!r}?)" if near else ""
        raise ValueError(
            f"{path} has objects of class {strange[0]!r}{meant}; classes of the config: {', '.join(known)}"
        )
    return np.array([known[name] for name in labels.classes], np.int64)


def format_labels(labels: Labels) -> str:
    """The lines of a label file without header, one object each; coordinates keep four decimals."""
    return "".join(
        " ".join(repr(round(float(value), 4)) for value in quad.ravel()) + f" {name} {level}\n"
        for quad, name, level in zip(labels.corners, labels.classes, labels.difficulty, strict=True)
    )


@dataclass(frozen=True)
class Patch:
    """A square window of an image: side `size`, upper left corner at (`x`, `y`), in pixels of the image."""

    image: str
    size: int
    x: int
    y: int

    @property
    def name(self) -> str:
        """`IMAGE__SIZE__X___Y`, the name of the patch's files without suffix."""
        return f"{self.image}__{self.size}__{self.x}___{self.y}"

    @classmethod
    def from_name(cls, name: str) -> Patch:
        """The patch of a name; the image's own name may hold `__` too.

        Raises:
            ValueError: it is not the name of a patch.
        """
        match = _PATCH.fullmatch(name)
        if match is None:
            raise ValueError(f"{name!r} is not the name of a patch: IMAGE__SIZE__X___Y")
        return cls(match["image"], int(match["size"]), int(match["x"]), int(match["y"]))
