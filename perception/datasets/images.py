"""Image files to upright `uint8` RGB arrays: one rule for training, testing, folder inference and making of data sets.

What becomes of the less common kinds:

* several frames (GIF, TIFF, MPO): the first one; palette, 1-bit and grey: converted to RGB;
* CMYK: converted without colour management; CIELab through sRGB's definition;
* colour profiles: not applied, as the published recipes read their files with OpenCV, which does not either;
* alpha: dropped, as OpenCV does with most files; what it hides counts;
* 16 bits a channel: the upper 8, so that 65535 becomes 255; 32-bit integers and floats have no defined white and are
  refused;
* EXIF orientation (in TIFF files the tag of that name): applied, and sizes and labels refer to the upright image.

Worker processes of folder inference import this module, so it imports nothing heavy.
"""

from __future__ import annotations

import os
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

# A closed list: PIL also knows formats that start an interpreter (EPS) or that no camera writes. Files of several JPEGs
# (MPO) are recognised by JPEG's entry.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

# HEIC is here although it cannot be decoded: a phone's folder must not look empty.
IMAGE_SUFFIXES = frozenset(
    [
        ".avif",
        ".bmp",
        ".gif",
        ".heic",
        ".heif",
        ".jfif",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".mpo",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    ]
)
"""By these a file of a folder is taken for an image."""

MAX_PIXELS = 2**30
"""Larger images are not read whole; it is OpenCV's limit as well."""


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


class UnreadableImageError(Exception):
    """An image file cannot be read; the message is the reason, without the file's name."""


@dataclass(frozen=True)
class ImageHeader:
    """What a file says of its image before any pixel is decoded: the size in pixels when upright."""

    width: int
    height: int


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """The upright image, uint8 (height, width, 3) RGB, read-only.

    Raises:
        UnreadableImageError: with the reason.
    """
    with open_image(path) as image:
        _check_pixel_count(image)
        return np.asarray(upright_rgb(image))


def read_header(path: str | os.PathLike[str]) -> ImageHeader:
    """The size that :func:`read_image` will return, from the header alone.

    Raises:
        UnreadableImageError: the file is not an image, or its samples have no defined white. Damage further on in the
            file is not noticed.
    """
    with open_image(path) as image:
        check_samples(image)
        _check_pixel_count(image)
        width, height = image.size
        # PIL turns TIFF files itself, and gives the upright size from the start.
        turned = image.format != "TIFF" and _header_orientation(image) >= 5
    return ImageHeader(height, width) if turned else ImageHeader(width, height)


def open_without_limit(path: str | os.PathLike) -> Image.Image:
    """PIL's image of a file, of whatever size: MAX_PIXELS takes the place of PIL's guard here, and a limit of memory in
    folder inference.

    The guard is one for the whole process, and other libraries set it when they are imported (nuscenes-devkit does): it
    is off while files are opened, in any thread, and afterwards what it was.
    """
    with _GUARD.off():
        return Image.open(path, formats=FORMATS)


class _Guard:
    """PIL's limit of pixels, which several threads may have switched off at a time."""

    def __init__(self) -> None:
        self._lock, self._users = threading.Lock(), 0
        self._limit: int | None = None

    @contextmanager
    def off(self) -> Iterator[None]:
        with self._lock:
            if not self._users:
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    Image.MAX_IMAGE_PIXELS = self._limit


_GUARD = _Guard()


@contextmanager
def open_image(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Opens a file with PIL; whatever goes wrong until the end of the block is an `UnreadableImageError`."""
    try:
        if os.path.getsize(path) == 0:
            raise UnreadableImageError("empty file")
        with warnings.catch_warnings():
            # PIL warns about odd metadata of files that it decodes all the same.
            warnings.simplefilter("ignore")
            with open_without_limit(path) as image:
                yield image
    except UnreadableImageError:
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError("not an image, or of a format that is not supported") from None
    except MemoryError:
        raise UnreadableImageError("not enough memory to decode it") from None
    except OSError as error:
        raise UnreadableImageError(error.strerror or f"damaged: {error}") from error
    except Exception as error:  # decoders of damaged files fail in every way; the user gets the reason
        raise UnreadableImageError(f"damaged: {type(error).__name__}: {error}") from error


def check_samples(image: Image.Image) -> None:
    """Refuses samples that cannot become 8 bits by a rule.

    Raises:
        UnreadableImageError: they are 32-bit integers or floats.
    """
    # PNG and PPM files of 16 bits may open as "I"; elsewhere it means 32.
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        kind = "floating-point" if image.mode == "F" else "32-bit"
        raise UnreadableImageError(f"{kind} samples, whose white level is not defined")


def upright_rgb(image: Image.Image, factor: int = 1) -> Image.Image:
    """The pixels of an opened file as 8-bit RGB, upright.

    Args:
        image: as :func:`open_image` gives it.
        factor: a power of two by which both sides shrink; JPEG files are decoded at that size.

    Raises:
        UnreadableImageError: see :func:`check_samples`.
    """
    check_samples(image)
    return _upright(_reduced_rgb(image, factor), orientation_of(image))


def upright(image: Image.Image) -> Image.Image:
    """An opened file as it is stored, but upright: grey stays grey, and a palette's indices stay indices."""
    _load(image)
    return _upright(image, orientation_of(image))


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of an opened file, 1 to 8; metadata that cannot be parsed counts as none.

    To be asked for after the pixels: in PNG files it may follow them, and looking for it loads them and hides their
    faults.
    """
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except (OSError, SyntaxError, ValueError, KeyError, IndexError, TypeError, struct.error):
        return 1
    return value if value in range(1, 9) else 1


def orientation_of_file(path: str | os.PathLike[str]) -> int:
    """The EXIF orientation of a file, 1 to 8, from its header; 1 for a file that cannot be opened."""
    try:
        with open_image(path) as image:
            return _header_orientation(image)
    except UnreadableImageError:
        return 1


def _upright(pixels: Image.Image, orientation: int) -> Image.Image:
    return pixels.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else pixels


def _header_orientation(image: Image.Image) -> int:
    """As `orientation_of`, without decoding a PNG's pixels to reach metadata behind them."""
    if image.format != "PNG" or "exif" in image.info:
        return orientation_of(image)
    exif = Image.Exif()
    try:
        exif.load(_png_exif(image))
        value = exif.get(_ORIENTATION_TAG, 1)
    except (OSError, SyntaxError, ValueError, KeyError, IndexError, TypeError, struct.error):
        return 1
    return value if value in range(1, 9) else 1


def _png_exif(image: Image.Image) -> bytes:
    """The content of a PNG file's eXIf chunk, by going from chunk to chunk; empty when there is none."""
    file = image.fp
    position = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"eXIf":
                return b"Exif\0\0" + file.read(length)
            file.seek(length + 4, os.SEEK_CUR)
        return b""
    finally:
        file.seek(position)


def _check_pixel_count(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImageError(
            f"{image.width} x {image.height} pixels are more than the {MAX_PIXELS} that are read whole"
        )


def _load(image: Image.Image) -> None:
    # PIL maps uncompressed TIFF files into memory as if they were stored upright, which shears turned ones; without the
    # name it reads them.
    if image.format == "TIFF" and orientation_of(image) >= 5:
        image.filename = ""
    image.load()


def _reduced_rgb(image: Image.Image, factor: int) -> Image.Image:
    if factor > 1 and image.format in ("JPEG", "MPO"):
        # libjpeg decodes straight to 1/2, 1/4 or 1/8.
        scale = min(factor, 8)
        image.draft(image.mode, (image.width // scale, image.height // scale))
        factor //= scale
    _load(image)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode != "RGB":
        image = image.convert("RGB")
    return image.reduce(factor) if factor > 1 else image
