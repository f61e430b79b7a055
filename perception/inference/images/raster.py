"""Windows of image files, without decoding the whole image where that can be avoided.

`open_raster` takes the first way that can open the file:

* rasterio (extra `raster`) for GeoTIFF, JPEG 2000 and whatever else GDAL opens;
* pyvips (extra `raster`) for JPEG and PNG: rows are decoded as they are asked for. The decoders of progressive JPEG,
  interlaced PNG, WebP, GIF and AVIF hold the whole image all the same, which is said once;
* Pillow: decodes everything at once, and says so.

Colours, bit depths and orientations are treated as in `perception.datasets.images`.
"""

from __future__ import annotations

import importlib.util
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from perception.datasets.images import FORMATS, UnreadableImageError, orientation_of_file
from perception.datasets.windows import ImageWindows, WholeImage, Window
from perception.inference.images.decoding import FULL_PIXELS, decode
from perception.inference.images.sample import Georeference
from perception.inference.reading import Refused
from perception.inference.scan import Source

# Formats for libvips; everything else is offered to GDAL first.
_FOR_VIPS = (".avif", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".png", ".webp")
_LOADERS = ("gifload", "heifload", "jp2kload", "jpegload", "pngload", "ppmload", "tiffload", "webpload")
_REFERRING = ("VRT", "GTI", "STACIT", "STACTA", "WCS", "WMS", "WMTS", "OGCAPI", "HTTP", "EEDAI", "DAAS", "PLMOSAIC")
_GDAL_CACHE_MB = 64
_ROWS_AT_ONCE = 64


class DamagedError(UnreadableImageError):
    """A file cannot be read on; the message is the reason."""


class Raster(ABC):
    """An open image file of `width` x `height` pixels, upright; `georeference` is None when it has none."""

    width: int
    height: int
    georeference: Georeference | None = None

    @abstractmethod
    def read(self, window: Window) -> np.ndarray:
        """Pixels of a window, uint8 (height, width, 3) RGB. Windows come row by row, from the top.

        Raises:
            DamagedError: the file cannot be read there.
        """

    @abstractmethod
    def close(self) -> None:
        """Frees the file and what is in memory of it."""


def open_raster(source: Source) -> Raster | Refused:
    """Opens a file in the most economical way; whatever is wrong with it comes back as `Refused`."""
    if source.file_size == 0:
        return Refused("empty file")
    ways = [_with_vips] if source.path.suffix.lower() in _FOR_VIPS else [_with_gdal, _with_vips]
    for way in ways:
        opened = way(source)
        if opened is not None:
            return opened
    return _with_pillow(source)


def open_windows(path: Path) -> ImageWindows:
    """Opens a file that is to be cut up outside a folder run, whole where there is no other way and however large.

    Raises:
        UnreadableImageError: it cannot be opened.
    """
    opened = open_raster(Source.of_file(path.name, path, path.stat().st_size))
    # Folder inference refuses for memory too; every other reason comes again.
    return WholeImage(path) if isinstance(opened, Refused) else opened


def _with_gdal(source: Source) -> Raster | Refused | None:
    # Only GDAL leaves orientations to its caller.
    if importlib.util.find_spec("rasterio") is None or orientation_of_file(source.path) != 1:
        return None
    import rasterio

    try:
        return _GdalRaster(source)
    except rasterio.errors.RasterioIOError:
        return None
    except DamagedError as error:
        return Refused(str(error))


def _with_vips(source: Source) -> Raster | Refused | None:
    if importlib.util.find_spec("pyvips") is None:
        return None
    import pyvips

    try:
        return _VipsRaster(source)
    except pyvips.Error:
        return None
    except DamagedError as error:
        return Refused(str(error))


def _with_pillow(source: Source) -> Raster | Refused:
    decoded = decode(source, None, allow_large=True)
    if isinstance(decoded, Refused):
        return decoded
    _say_whole(importlib.util.find_spec("pyvips") is not None)
    return _PillowRaster(decoded.pixels)


@cache
def _say_whole(has_reader: bool) -> None:
    install = "`pip install rasterio pyvips pyvips-binary` gives what reads them in parts"
    remedy = "libvips cannot read them" if has_reader else install
    warnings.warn(f"images are decoded whole, which takes memory: {remedy}", stacklevel=4)


@cache
def _say_not_by_rows(kind: str) -> None:
    warnings.warn(f"decoders of {kind} hold the whole image, which takes memory; a tiled TIFF does not", stacklevel=5)


class _PillowRaster(Raster):
    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels
        self.height, self.width = pixels.shape[:2]

    def read(self, window: Window) -> np.ndarray:
        return self._pixels[window.top : window.bottom, window.left : window.right]

    def close(self) -> None:
        del self._pixels


class _ByRows(Raster):
    """Keeps the rows of the current windows, so that each row of the file is decoded once."""

    def __init__(self) -> None:
        self._top, self._rows = 0, np.zeros((0, 0, 3), np.uint8)

    @abstractmethod
    def _read_rows(self, top: int, count: int) -> np.ndarray:
        """Rows that follow those read before, uint8 (count, width, 3)."""

    def read(self, window: Window) -> np.ndarray:
        bottom = self._top + len(self._rows)
        if window.bottom > bottom:
            kept = self._rows[max(0, window.top - self._top) :]
            self._top = bottom - len(kept)
            new = self._read_rows(bottom, window.bottom - bottom)
            self._rows = np.concatenate([kept, new]) if len(kept) else new
        rows = self._rows[window.top - self._top : window.bottom - self._top]
        return rows[:, window.left : window.right]


class _VipsRaster(_ByRows):
    def __init__(self, source: Source) -> None:
        import pyvips

        super().__init__()
        options = dict(fail_on="error")
        image = pyvips.Image.new_from_file(str(source.path), access="sequential", **options)
        # By its content a file may be a drawing or a document, which untiled images are not either.
        if image.get("vips-loader") not in _LOADERS:
            raise DamagedError("not an image, or of a format that is not supported")
        turned = image.get_typeof("orientation") and image.get("orientation") > 1
        kind = _not_by_rows(source.path)
        if kind is not None and image.width * image.height > FULL_PIXELS:
            _say_not_by_rows(kind)
        if turned or kind is not None:
            # Rows do not come in turn: libvips keeps the pixels of large images in a temporary file.
            image = pyvips.Image.new_from_file(str(source.path), access="random", **options).autorot()
        # One region for all rows: libvips would read ahead, with several threads, if it were asked for an image.
        self._region = pyvips.Region.new(_as_rgb(image))
        self.width, self.height = image.width, image.height

    def close(self) -> None:
        del self._region

    def _read_rows(self, top: int, count: int) -> np.ndarray:
        import pyvips

        rows = np.empty((count, self.width, 3), np.uint8)
        try:
            for start in range(0, count, _ROWS_AT_ONCE):
                some = rows[start : start + _ROWS_AT_ONCE]
                fetched = self._region.fetch(0, top + start, self.width, len(some))
                some[:] = np.frombuffer(fetched, np.uint8).reshape(some.shape)
        except pyvips.Error as error:
            raise DamagedError(f"damaged: {_last_line(error.detail)}") from error
        return rows


def _not_by_rows(path: Path) -> str | None:
    """What makes a file's decoder hold the whole image, whatever is asked for."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.format in ("JPEG", "MPO"):
                return "progressive JPEG" if image.info.get("progressive") else None
            if image.format == "PNG":
                return "interlaced PNG" if image.info.get("interlace") else None
            return image.format if image.format in ("WEBP", "AVIF", "GIF") else None
    except OSError:
        return None


def _as_rgb(image: Any) -> Any:
    """A vips image as three bands of 8 bits, without alpha."""
    if image.format in ("float", "double", "int", "uint", "complex", "dpcomplex"):
        raise DamagedError(_undefined_white(image.format))
    if image.format == "ushort":
        image = (image >> 8).cast("uchar").copy(interpretation="srgb" if image.bands > 2 else "b-w")
    if image.interpretation == "cmyk":
        # Without colour management, as Pillow does it.
        image = ((255 - image[:3]) * (255 - image[3]) / 255).rint().cast("uchar").copy(interpretation="srgb")
    if image.bands > 3:
        image = image[:3]
    elif image.bands < 3:
        grey = image[0]
        image = grey.bandjoin([grey, grey])
    return image


class _GdalRaster(_ByRows):
    def __init__(self, source: Source) -> None:
        super().__init__()
        with _gdal() as rasterio:
            self._file = rasterio.open(source.path)
        # Some formats only name other files, or places in the network: they must be meant.
        if self._file.driver in _REFERRING and source.path.suffix.lower() != ".vrt":
            self._file.close()
            raise DamagedError("it refers to other files; such a file has to be named .vrt")
        self.width, self.height = self._file.width, self._file.height
        kind = self._file.dtypes[0]
        if kind not in ("uint8", "uint16"):
            self._file.close()
            raise DamagedError(_undefined_white(kind))
        self._bands = [1, 2, 3] if self._file.count >= 3 else [1]
        self._colours = self._palette()
        # Files may use fewer bits than their samples have.
        self._bits = int(self._file.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8 * np.dtype(kind).itemsize))
        # Where a block is as wide as the image, windows side by side would decode it again and again.
        self._striped = self._file.block_shapes[0][1] >= self.width
        self.georeference = self._place()

    def read(self, window: Window) -> np.ndarray:
        return super().read(window) if self._striped else self._pixels(window)

    def close(self) -> None:
        self._file.close()

    def _read_rows(self, top: int, count: int) -> np.ndarray:
        return self._pixels(Window(0, top, self.width, count))

    def _pixels(self, window: Window) -> np.ndarray:
        with _gdal() as rasterio:
            part = rasterio.windows.Window(window.left, window.top, window.width, window.height)
            try:
                values = self._file.read(self._bands, window=part)  # (bands, height, width)
            except rasterio.errors.RasterioIOError as error:
                raise DamagedError(f"damaged: {_last_line(str(error.__cause__ or error))}") from error
        if self._colours is not None:
            return self._colours[values[0]]
        if self._bits > 8:
            values = (values >> (self._bits - 8)).astype(np.uint8)
        elif self._bits < 8:
            values = values * np.uint8(255 // (2**self._bits - 1))
        return np.ascontiguousarray(np.broadcast_to(values, (3, *values.shape[1:])).transpose(1, 2, 0))

    def _palette(self) -> np.ndarray | None:
        """Colours by index, of a file that holds indices."""
        try:
            colours = self._file.colormap(1)
        except ValueError:
            return None
        count = 2 ** (8 * np.dtype(self._file.dtypes[0]).itemsize)
        return np.asarray([colours.get(index, (0, 0, 0, 0))[:3] for index in range(count)], np.uint8)

    def _place(self) -> Georeference | None:
        crs = self._file.crs
        if not crs:
            return None
        authority = crs.to_authority()
        name = f"urn:ogc:def:crs:{authority[0]}::{authority[1]}" if authority else crs.to_wkt()
        return Georeference(name, tuple(self._file.transform)[:6])


@contextmanager
def _gdal() -> Iterator[Any]:
    """rasterio, with a small cache and without its word on images that lie nowhere."""
    import rasterio
    import rasterio.errors
    import rasterio.windows

    with rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE_MB), warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield rasterio


def _undefined_white(kind: str) -> str:
    return f"{kind} samples, whose white level is not defined"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["unreadable"])[-1]
