"""Folders of images made smaller by a whole factor: `images_4` beside `images`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from perception.datasets.images import IMAGE_SUFFIXES, UnreadableImageError, open_image
from perception.engine.errors import UserError

MODES = ("L", "LA", "P", "RGB", "RGBA")  # PIL's names of pixel types that have 8 bits a channel


def shrink_folder(source: Path, out: Path, factor: int, on_progress: Callable[[int, int], None] | None = None) -> int:
    """Write every image of a folder, ``factor`` times smaller, as PNG of the same name. Returns how many.

    A small pixel is the average of the area that it covers, with colours weighted by alpha where there is one. Sides
    that are no multiples of the factor are rounded down. Rows and columns are those that are stored, whatever an EXIF
    orientation says, since poses refer to them.

    Args:
        source: folder of images; other files in it are left out.
        out: folder to make; it appears whole or not at all.
        factor: at least 2.
        on_progress: called with the number of finished images and their total.

    Raises:
        UserError: the folder holds no images, one cannot be read or made so small, or ``out`` exists.
    """
    if factor < 2:
        raise UserError(f"the factor must be at least 2, not {factor}")
    if not source.is_dir():
        raise UserError(f"there is no folder {source}")
    if os.path.lexists(out):
        raise UserError(f"{out} exists: remove it to make it anew")
    files = sorted(p for p in source.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    if not files:
        raise UserError(f"{source} holds no images")
    if len({path.stem for path in files}) < len(files):
        raise UserError(f"{source} holds images whose names differ in their suffix alone")
    scratch = out.with_name(f".{out.name}.{os.getpid()}.partial")
    scratch.mkdir()
    try:
        for number, path in enumerate(files, start=1):
            _shrunk(path, factor).save(scratch / f"{path.stem}.png")
            if on_progress is not None:
                on_progress(number, len(files))
        scratch.rename(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return len(files)


def _shrunk(path: Path, factor: int) -> Image.Image:
    try:
        with open_image(path) as image:
            if image.mode not in MODES:
                raise UserError(f"{path} has pixels of type {image.mode}; 8-bit grey, RGB or RGBA is needed")
            transparent = image.mode in ("LA", "RGBA") or "transparency" in image.info
            pixels = image.convert("RGBA" if transparent else "RGB")
    except UnreadableImageError as error:
        raise UserError(f"cannot read {path}: {error}") from None
    width, height = pixels.width // factor, pixels.height // factor
    if not (width and height):
        raise UserError(f"{path} is {pixels.width} x {pixels.height} pixels, too small for a factor of {factor}")
    values = np.array(pixels, dtype=np.float32)
    if transparent:
        values[..., :3] *= values[..., 3:] / 255
    values = cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA)
    if transparent:
        values[..., :3] *= 255 / np.maximum(values[..., 3:], 1e-6)
    return Image.fromarray(np.round(values).clip(0, 255).astype(np.uint8))
