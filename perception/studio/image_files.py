"""What can be told of an image file without decoding its pixels: type, size, whether it is whole."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from perception.datasets.images import UnreadableImageError, open_image, orientation_of

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
THREADS = 8
REMEMBERED = 8192  # files
JPEG_TAIL = 4096  # bytes at the end of a JPEG in which its end marker must lie; some cameras append a little


@dataclass(frozen=True)
class ImageFile:
    """The header of an image.

    ``fault`` says why the file cannot be used and is empty otherwise; then the rest is known.
    """

    path: Path
    fault: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    has_alpha: bool = False
    orientation: int = 1
    """EXIF's, 1 to 8, of JPEG files. Pixels are taken as they are stored, to which poses and sizes refer."""


def look_at(path: Path) -> ImageFile:
    """Read the header of an image and find out whether the file is whole; once for each state of the file.

    PNG: the checksums of all its parts; JPEG: the end marker; other formats are decoded.
    """
    if not path.is_file():
        return ImageFile(path, f"there is no image {path}")
    state = path.stat()
    return _look_at(path, state.st_size, state.st_mtime_ns)


@lru_cache(REMEMBERED)
def _look_at(path: Path, size: int, changed: int) -> ImageFile:
    """``size`` and ``changed`` tell states of the file apart."""
    try:
        with open_image(path) as image:
            alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
            known = ImageFile(path, "", image.width, image.height, image.mode, alpha)
            if image.format == "PNG":
                image.verify()
            elif image.format in ("JPEG", "MPO"):
                known = replace(known, orientation=orientation_of(image))
                if b"\xff\xd9" not in _tail(path):
                    raise UnreadableImageError("the file is cut off")
            else:
                image.load()
    except UnreadableImageError as error:
        return ImageFile(path, f"cannot read {path}: {error}")
    return known


def look_at_all(paths: Sequence[Path]) -> list[ImageFile]:
    """:func:`look_at` for many files, several at once."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(look_at, paths))


def find_image(folder: Path, name: str) -> Path:
    """The image file that a frame names, with or without its suffix; the path with `.png` where there is none."""
    path = folder / name
    if "\\" in name and not path.exists():
        path = folder / name.replace("\\", "/")  # written on Windows
    if path.suffix.lower() in SUFFIXES and path.is_file():
        return path
    candidates = [path.with_name(path.name + suffix) for suffix in SUFFIXES]
    return next((candidate for candidate in candidates if candidate.is_file()), _expected(path))


def _expected(path: Path) -> Path:
    return path if path.suffix.lower() in SUFFIXES else path.with_name(path.name + ".png")


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - JPEG_TAIL))
        return file.read()
