"""Pictures in floating point: Radiance `.hdr` and OpenEXR `.exr`, read and written by OpenCV."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from perception.engine.atomic import replacing
from perception.engine.errors import UserError

SUFFIXES = (".hdr", ".exr")


def read_hdr(path: Path) -> np.ndarray:
    """Linear values (H, W, C) of a `.hdr` or `.exr` file as float32; C is 1, 3 (RGB) or 4 (RGBA).

    Raises:
        UserError: the file is missing, of another kind or damaged, or holds values that are not finite.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path} must be a {' or '.join(SUFFIXES)} file")
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    cv2 = _cv2()
    level = cv2.getLogLevel()
    cv2.setLogLevel(0)  # its own words about a damaged file
    try:
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:  # of an empty file
        pixels = None
    finally:
        cv2.setLogLevel(level)
    if pixels is None or pixels.dtype != np.float32:
        raise UserError(f"{path} cannot be read as a {path.suffix} picture: it is damaged, or of another kind")
    pixels = pixels[..., None] if pixels.ndim == 2 else _swapped(pixels)
    wrong = ~np.isfinite(pixels).all(-1)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise UserError(
            f"{int(wrong.sum())} pixels of {path} are not finite numbers, the first in row {row}, column {column}: "
            "repair them"
        )
    return np.ascontiguousarray(pixels)


def write_hdr(path: Path, pixels: np.ndarray) -> None:
    """Write values (H, W, C), under a temporary name until the file is complete.

    Args:
        path: with the suffix `.hdr` (three channels, not negative, 8-bit mantissas) or `.exr`.
        pixels: C is 1, 3 or 4.

    Raises:
        UserError: the suffix is another, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path} must be a {' or '.join(SUFFIXES)} file")
    encoded = encode_hdr(pixels, path.suffix.lower())
    with replacing(path) as file:
        file.write(encoded)


def encode_hdr(pixels: np.ndarray, suffix: str) -> bytes:
    """The content of a file; see :func:`write_hdr`."""
    pixels = np.ascontiguousarray(_swapped(np.asarray(pixels, np.float32)))
    done, encoded = _cv2().imencode(suffix, pixels)
    if not done:
        raise UserError(f"a picture of {pixels.shape} cannot be written as {suffix}")
    return encoded.tobytes()


def read_latlong(path: Path) -> np.ndarray:
    """A light map (H, 2 H, 3) that goes all around.

    Raises:
        UserError: the file cannot be read, is not twice as wide as high, or has negative values.
    """
    pixels = read_hdr(path)
    height, width = pixels.shape[:2]
    if width != 2 * height:
        raise UserError(f"{path} is {width} x {height} pixels, but a lat-long map is twice as wide as high")
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, 2)
    if pixels.min() < 0:
        raise UserError(f"{path} holds negative light, down to {pixels.min():.3g}")
    return pixels[..., :3]


def _swapped(pixels: np.ndarray) -> np.ndarray:
    """OpenCV keeps blue first."""
    if pixels.shape[2] < 3:
        return pixels
    return np.concatenate([pixels[..., 2::-1], pixels[..., 3:]], -1)


def _cv2():
    os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")  # which it looks at when it first meets such a file
    import cv2

    return cv2
