"""Segmentations of COCO's format as masks, of any of its three forms and of objects in huge images.

The rule is that of COCO's own tools: coordinates of polygons are continuous, (0, 0) being the outer corner of the first
pixel, and several polygons are one object. Parts of fewer than three points, which these tools take for boxes or refuse
together with all the rest, are passed over.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as rle

from perception.datasets.windows import Window


@dataclass(frozen=True)
class MaskCrop:
    """The part of an image in which an object's mask lies: its first pixel (left, top), and bool (height, width)."""

    left: int
    top: int
    inside: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.inside.shape

    def bounds(self) -> tuple[int, int, int, int]:
        """The upright box around it as xyxy."""
        height, width = self.shape
        return self.left, self.top, self.left + width, self.top + height

    def reduced(self, factor: int) -> MaskCrop:
        """In an image `factor` times as small: pixels of which half and more is inside, else all that have a share."""
        height, width = self.shape
        left, top = self.left // factor, self.top // factor
        before = self.top - top * factor, self.left - left * factor
        after = -(before[0] + height) % factor, -(before[1] + width) % factor
        padded = np.pad(self.inside, ((before[0], after[0]), (before[1], after[1])))
        rows, columns = (side // factor for side in padded.shape)
        shares = padded.reshape(rows, factor, columns, factor).mean((1, 3), dtype=np.float32)
        inside = shares >= 0.5
        return MaskCrop(left, top, inside if inside.any() else shares > 0)

    def within(self, window: Window) -> np.ndarray | None:
        """The mask in a window, bool (height, width) of the window; None if nothing of it lies there."""
        height, width = self.shape
        left, top = max(self.left, window.left), max(self.top, window.top)
        right, bottom = min(self.left + width, window.right), min(self.top + height, window.bottom)
        if left >= right or top >= bottom:
            return None
        part = self.inside[top - self.top : bottom - self.top, left - self.left : right - self.left]
        if not part.any():
            return None
        whole = np.zeros((window.height, window.width), bool)
        whole[top - window.top : bottom - window.top, left - window.left : right - window.left] = part
        return whole


class PackedMask(MaskCrop):
    """The same in about a hundredth of the memory: its pixels are made anew each time that one asks for them."""

    def __init__(self, mask: MaskCrop, left: int, top: int) -> None:
        """Packs a mask whose first pixel is (left, top) from now on."""
        # The attributes of a frozen class.
        packed = zlib.compress(np.packbits(mask.inside), level=1)
        vars(self).update(left=left, top=top, _shape=mask.shape, _packed=packed)

    @property
    def shape(self) -> tuple[int, int]:
        return self._shape

    @property
    def inside(self) -> np.ndarray:
        height, width = self._shape
        bits = np.frombuffer(zlib.decompress(self._packed), np.uint8)
        return np.unpackbits(bits, count=height * width).view(bool).reshape(height, width)


def valid_polygons(segmentation: Sequence) -> list[list[float]]:
    """Those parts of a list of polygons that have three points and more."""
    return [part for part in segmentation if isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0]


def object_mask(segmentation: object, width: int, height: int) -> MaskCrop | None:
    """The mask of one object, without what lies beyond its image; None if there is no pixel of it.

    Args:
        segmentation: polygons, or run lengths, compressed or not.
        width, height: of the image.

    Raises:
        ValueError: run lengths are those of an image of another size.
    """
    if isinstance(segmentation, dict):
        if list(segmentation["size"]) != [height, width]:
            raise ValueError(
                f"run lengths are for [height, width] {segmentation['size']}, the image has {[height, width]}"
            )
        listed = isinstance(segmentation["counts"], list)
        return _of_runs(rle.frPyObjects(segmentation, height, width) if listed else segmentation)
    polygons = valid_polygons(segmentation) if isinstance(segmentation, list) else []
    if not polygons:
        return None
    return _of_runs(rle.merge(rle.frPyObjects(polygons, height, width)))


def _of_runs(encoded: dict) -> MaskCrop | None:
    """The mask of compressed run lengths; of the image only the columns of the object are unpacked."""
    height, _ = encoded["size"]
    left, top, columns, rows = (int(value) for value in rle.toBbox(encoded))
    if not columns or not rows:
        return None
    ends = np.cumsum(_counts(encoded["counts"])) - left * height
    changes = np.zeros(columns * height + 1, np.int8)  # runs of zeros and ones in turn, down the columns
    starts, stops = ends[0::2], ends[1::2]
    changes[starts[: len(stops)]] += 1
    changes[stops] -= 1
    inside = np.cumsum(changes[:-1], dtype=np.int8).reshape(columns, height)[:, top : top + rows].T.astype(bool)
    return MaskCrop(left, top, np.ascontiguousarray(inside))


def _counts(packed: bytes | str) -> list[int]:
    """COCO's packed run lengths: five bits a character, from the third number on the difference to the last but one."""
    counts: list[int] = []
    value = shift = 0
    for character in packed.encode() if isinstance(packed, str) else packed:
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return counts
