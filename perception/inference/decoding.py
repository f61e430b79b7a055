"""Image files to `uint8` RGB arrays. Runs in worker processes, so it imports nothing heavy.

What becomes of the less common kinds:

* several frames (GIF, TIFF, MPO): the first one; palette, 1-bit, grey and CMYK: converted to RGB;
* alpha: dropped, as OpenCV does when the training pipelines read a file;
* 16 bits a channel: the upper 8, so that 65535 becomes 255; 32-bit integers and floats have no defined white and are
  refused;
* EXIF orientation: applied, and sizes and boxes refer to the upright image;
* more than `FULL_PIXELS`: decoded at a half, a quarter, ... of its size, down to twice the resolution that the model
  sees. `Decoded.factor` maps coordinates back.
"""

from __future__ import annotations

import os
import struct
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from perception.inference.scan import Source

FULL_PIXELS = 16_000_000
"""Images up to this size are decoded as they are, whatever the model resizes them to."""

LARGE_BYTES = 256 * 2**20
"""Decoding that needs more than this is deferred, so that it never happens in several processes at once."""

LIMIT_BYTES = 3 * 2**29
"""Decoding that needs more than this is refused."""

# A closed list: PIL also knows formats that start an interpreter (EPS) or that no camera writes. Files of several JPEGs
# (MPO) are recognised by JPEG's entry.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

# PIL's own guard is replaced by LIMIT_BYTES, which knows about reduced decoding.
Image.MAX_IMAGE_PIXELS = None

# Bytes a pixel in PIL's memory; what is not listed takes four.
_PIXEL_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class InputSize:
    """How a test pipeline resizes: to `width` x `height`, or with `keep_ratio` to fit their long and short side."""

    width: int
    height: int
    keep_ratio: bool

    def reduction(self, width: int, height: int) -> float:
        """By how much an image of this size shrinks on its way into the model, along the axis that shrinks least."""
        if not self.keep_ratio:
            return min(width / self.width, height / self.height)
        long, short = max(self.width, self.height), min(self.width, self.height)
        # The ratio is kept, so both axes shrink by the stronger of the two demands.
        return max(max(width, height) / long, min(width, height) / short)


@dataclass(frozen=True)
class Decoded:
    """An image in memory.

    `pixels` is uint8 (height, width, 3) RGB. A coordinate in it times `factor` is a coordinate in the upright original,
    which has `width` x `height` pixels.
    """

    pixels: np.ndarray
    width: int
    height: int
    factor: int


@dataclass(frozen=True)
class Refused:
    """A file that is not decoded, and why."""

    reason: str


@dataclass(frozen=True)
class Deferred:
    """A file whose decoding needs so much memory that it has to happen alone."""


def decode(source: Source, input_size: InputSize | None, allow_large: bool) -> Decoded | Refused | Deferred:
    """Decodes one file; whatever is wrong with it comes back as `Refused`, never as an exception.

    Args:
        source: the file.
        input_size: what the model resizes to; None when it takes images as they are.
        allow_large: decode even when it takes more than `LARGE_BYTES`.
    """
    try:
        if os.path.getsize(source.path) == 0:
            return Refused("empty file")
        with warnings.catch_warnings():
            # PIL warns about odd metadata of files that it decodes all the same.
            warnings.simplefilter("ignore")
            with Image.open(source.path, formats=FORMATS) as image:
                return _decode(image, input_size, allow_large)
    except UnidentifiedImageError:
        return Refused("not an image, or of a format that is not supported")
    except MemoryError:
        return Refused("not enough memory to decode it")
    except OSError as error:
        return Refused(error.strerror or f"damaged: {error}")
    except Exception as error:  # decoders of damaged files fail in every way; the user gets the reason
        return Refused(f"damaged: {type(error).__name__}: {error}")


def _decode(image: Image.Image, input_size: InputSize | None, allow_large: bool) -> Decoded | Refused | Deferred:
    width, height = image.size
    # PNG and PPM files of 16 bits may open as "I"; elsewhere it means 32.
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        kind = "floating-point" if image.mode == "F" else "32-bit"
        return Refused(f"{kind} samples, whose white level is not defined")
    factor = reduction_factor(width, height, input_size)
    needed = memory_needed(image, factor)
    if needed > LIMIT_BYTES:
        gibibytes = f"{needed / 2**30:.1f} GiB to decode, the limit is {LIMIT_BYTES / 2**30:g} GiB"
        return Refused(f"{width} x {height} pixels need {gibibytes}")
    if needed > LARGE_BYTES and not allow_large:
        return Deferred()
    rgb = _reduced_rgb(image, factor)
    # After the pixels: in PNG files it may follow them, and looking for it would load them and hide their faults.
    orientation = _orientation(image)
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    if orientation >= 5:
        width, height = height, width
    return Decoded(np.asarray(rgb), width, height, factor)


def orientation_of(path: str | os.PathLike[str]) -> int:
    """The EXIF orientation of a file, 1 to 8, from its header; 1 for a file that Pillow cannot open."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                return _orientation(image)
    except OSError:
        return 1


def reduction_factor(width: int, height: int, input_size: InputSize | None) -> int:
    """The smallest power of two that brings an image under `FULL_PIXELS`, as far as the model does not notice."""
    factor = 1
    if input_size is None:
        return factor
    # A model that shrinks by r still gets at least two decoded pixels for each of its own when 2 * factor <= r.
    allowed = input_size.reduction(width, height) / 2
    while 2 * factor <= allowed and (width // factor) * (height // factor) > FULL_PIXELS:
        factor *= 2
    return factor


def memory_needed(image: Image.Image, factor: int) -> int:
    """Bytes that decoding an opened image takes at its peak, estimated from its header."""
    width, height = image.size
    result = 3 * (width // factor + 1) * (height // factor + 1)
    if image.format in ("JPEG", "MPO"):
        scale = min(factor, 8)
        buffers = 4 * (width // scale + 1) * (height // scale + 1)
        # A progressive file's coefficients (16 bits each) are kept whole, whatever size comes out.
        coefficients = 6 * width * height if image.info.get("progressive") else 0
        return buffers + coefficients + 2 * result
    stored = _PIXEL_BYTES.get(image.mode, 4)
    converted = 0 if image.mode == "RGB" else 4
    return (stored + converted) * width * height + 2 * result


def _reduced_rgb(image: Image.Image, factor: int) -> Image.Image:
    if factor > 1 and image.format in ("JPEG", "MPO"):
        # libjpeg decodes straight to 1/2, 1/4 or 1/8.
        scale = min(factor, 8)
        image.draft(image.mode, (image.width // scale, image.height // scale))
        factor //= scale
    image.load()
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode != "RGB":
        image = image.convert("RGB")
    return image.reduce(factor) if factor > 1 else image


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; metadata that cannot be parsed counts as none."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except (OSError, SyntaxError, ValueError, KeyError, IndexError, TypeError, struct.error):
        return 1
    return value if value in range(1, 9) else 1
