"""Maps of classes for segmentation ("masks"): one file an image, whose values are labels.

A file holds one channel: grey (8 or 16 bits), 1-bit, or indices of a palette, whose colours do not matter. With
``reduce_zero_label`` the value 0 is unlabelled and 1 is the first class; without, 0 is the first class. 255 is ignored
in either case.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.datasets.images import UnreadableImageError, open_image, upright

IGNORED = 255

_CHANNELS = {"LA": 2, "PA": 2, "RGB": 3, "LAB": 3, "YCbCr": 3, "HSV": 3, "RGBA": 4, "RGBX": 4, "CMYK": 4}
_NAMED = 5


@dataclass(frozen=True)
class Labels:
    """Which values are labels: `count` classes, from 0 on or with `reduce_zero_label` from 1 on."""

    count: int
    reduce_zero_label: bool = False

    @property
    def end(self) -> int:
        """The first value above all labels."""
        return self.count + self.reduce_zero_label

    def __str__(self) -> str:
        first = "0 (unlabelled), 1" if self.reduce_zero_label else "0"
        return f"{first} to {self.end - 1} ({self.count} classes) and {IGNORED} (ignored)"


def read_seg_map(path: str | os.PathLike[str]) -> np.ndarray:
    """The values of a file, uint8 or uint16 (height, width), upright.

    Raises:
        UnreadableImageError: it cannot be read, has several channels, or was compressed with losses.
    """
    with open_image(path) as image:
        if image.mode in _CHANNELS:
            raise UnreadableImageError(
                f"it has {_CHANNELS[image.mode]} channels ({image.mode}), but a mask has one, whose values are the "
                "labels; convert colours to labels first"
            )
        if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
            raise UnreadableImageError(f"its values are not 8-bit or 16-bit whole numbers (mode {image.mode})")
        if image.format in ("JPEG", "MPO"):
            raise UnreadableImageError("it is a JPEG file, whose compression changes labels; save masks as PNG")
        values = np.asarray(upright(image))
    return values.astype(np.uint16 if values.dtype.itemsize > 1 else np.uint8, copy=False)


def seg_map_fault(seg_map: np.ndarray, size: tuple[int, int], labels: Labels) -> str | None:
    """What is wrong with a map: words that follow the file's name, or None.

    Args:
        seg_map: (H, W), as `read_seg_map` gives it.
        size: width and height of the image, upright.
        labels: what its values may be.
    """
    height, width = seg_map.shape
    if (width, height) != size:
        turned = (
            ": it is turned, the image has an EXIF orientation" if (height, width) == size != (width, height) else ""
        )
        return f"has {width} x {height} pixels, but its image {size[0]} x {size[1]}{turned}"
    strange = (seg_map >= labels.end) & (seg_map != IGNORED)
    if strange.any():
        values = np.unique(seg_map[strange]).tolist()
        more = ", ..." if len(values) > _NAMED else ""
        listed = ", ".join(map(str, values[:_NAMED])) + more
        hint = ", where 0 is unlabelled set reduce_zero_label" if values == [labels.count] else ""
        return f"has values that are no labels: {listed}; the data set has {labels}{hint}"
    return None


def check_seg_map(path: str | os.PathLike[str], size: tuple[int, int], labels: Labels) -> str | None:
    """What is wrong with a file: a sentence with its name, or None. For arguments see `seg_map_fault`."""
    try:
        fault = seg_map_fault(read_seg_map(path), size, labels)
    except UnreadableImageError as error:
        return f"mask {path} cannot be used: {error}"
    return fault and f"mask {path} {fault}"


def check_labelled(paths: Iterable[str | os.PathLike[str]], labels: Labels) -> str | None:
    """What is wrong with a sample of a data set's maps taken together: a sentence, or None.

    Masks of one object are often stored as 0 and 255, and read as labels they teach nothing. Files that cannot be read
    are passed over: they are named when they are loaded.
    """
    found: set[int] = set()
    count, example = 0, None
    for path in paths:
        try:
            values = np.unique(read_seg_map(path)).tolist()
        except UnreadableImageError:
            continue
        found.update(values)
        count, example = count + 1, example or Path(path)
    unlabelled = {0, IGNORED} if labels.reduce_zero_label else {IGNORED}
    if not count or not found <= {0, IGNORED} or (IGNORED not in found and not found <= unlabelled):
        return None
    held = " and ".join(map(str, sorted(found)))
    what = "no labelled pixel" if found <= unlabelled else "no label but 0"
    remedy = " (masks of one object that were saved as 0 and 255 need 0 and 1)" if IGNORED in found else ""
    seen = f"{count} masks that were looked at, {example} first, hold only {held}"
    return f"{seen}: {what}; the data set has {labels}{remedy}"


def train_labels(seg_map: np.ndarray, labels: Labels, label_map: Mapping[int, int] | None) -> np.ndarray:
    """Values of a file without fault as labels from 0 on, uint8; what is not labelled becomes 255.

    Args:
        label_map: the new label of every class, where only some of a data set's classes are used.
    """
    same = np.arange(IGNORED + 1, dtype=np.uint8)
    table = same.copy()
    if labels.reduce_zero_label:
        table[0], table[1:IGNORED] = IGNORED, same[: IGNORED - 1]
    if label_map:
        new = same.copy()
        for old, label in label_map.items():
            new[old] = label
        table = new[table]
    return table[seg_map]
