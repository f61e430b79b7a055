"""Windows of image files, without decoding the whole image where that can be avoided.

`open_raster` takes the first way that can open the file:

* rasterio (extra `raster`) for GeoTIFF, JPEG 2000 and whatever else GDAL opens (`gdal_raster`);
* pyvips (extra `raster`) for JPEG and PNG: rows are decoded as they are asked for. The decoders of progressive JPEG,
  interlaced PNG, WebP, GIF and AVIF hold the whole image all the same, which is said once;
* Pillow: decodes everything at once, and says so.

Colours, bit depths and orientations are treated as in `perception.datasets.images`; what rasters have beyond that is
`gdal_raster`'s.
"""

from __future__ import annotations

import copy
import importlib.util
import warnings
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from perception.datasets.images import UnreadableImageError, open_image, open_without_limit
from perception.datasets.windows import ImageWindows, WholeImage, Window
from perception.inference.images.decoding import FULL_PIXELS, decode
from perception.inference.images.gdal_raster import NO_OPTIONS, GdalRaster, SampleOptions, open_gdal
from perception.inference.images.windowed import ByRows, DamagedError, Raster, ReducedRows, last_line, reduced_size
from perception.inference.reading import Refused
from perception.inference.scan import Source

# Formats for libvips; everything else is offered to GDAL first.
_FOR_VIPS = (".avif", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".png", ".webp")
_LOADERS = ("gifload", "heifload", "jp2kload", "jpegload", "pngload", "ppmload", "tiffload", "webpload")
_ROWS_AT_ONCE = 64
_JPEG_BLOCK = 8  # pixels along a side

NEEDS_GDAL = "--range and --bands need rasterio, which cannot read it or is not installed"


def open_raster(source: Source, options: SampleOptions = NO_OPTIONS) -> Raster | Refused:
    """Opens a file in the most economical way; whatever is wrong with it comes back as `Refused`."""
    if source.file_size == 0:
        return Refused("empty file")
    opened = open_gdal(source, options) if options.given or for_gdal(source) else None
    if opened is None and options.given:
        return Refused(NEEDS_GDAL)
    if opened is None and not _is_lab(source.path):
        opened = _with_vips(source)
    if opened is None:
        opened = _with_pillow(source)
    if isinstance(opened, Raster) and not opened.remark:
        opened.remark = dim_remark(source)
    return opened


def for_gdal(source: Source) -> bool:
    """Whether a file is, by its name, of a format that GDAL reads best."""
    return source.path.suffix.lower() not in _FOR_VIPS


def dim_remark(source: Source) -> str:
    """What to say of a PNG file whose 16 bits are hardly used: by the rule of PNG, 65535 is white in it."""
    if not _is_deep_png(source.path):
        return ""
    opened = open_gdal(source, NO_OPTIONS)
    if not isinstance(opened, GdalRaster):
        return ""
    with closing(opened):
        if opened.reading is None or "range" not in opened.reading:
            return ""
        low, high = opened.reading["range"][0]
    return (
        f"its 16-bit samples reach from {low:g} to {high:g} only, so that it is dark; --range {low:g} {high:g} is not"
    )


def open_windows(path: Path) -> ImageWindows:
    """Opens a file that is to be cut up outside a folder run, whole where there is no other way and however large.

    Raises:
        UnreadableImageError: it cannot be opened.
    """
    opened = open_raster(Source.of_file(path.name, path, path.stat().st_size))
    if isinstance(opened, Refused):
        # Folder inference refuses for memory too; every other reason comes again.
        return WholeImage(path)
    if opened.remark:
        warnings.warn(f"{path}: {opened.remark}", stacklevel=2)
    return opened


def _is_deep_png(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(25)  # signature, and the first chunk up to its bit depth
    except OSError:
        return False
    return head[:8] == b"\x89PNG\r\n\x1a\n" and head[24:25] == b"\x10"


def _is_lab(path: Path) -> bool:
    """Whether an image is CIELab, which readers convert in different ways."""
    try:
        with open_image(path) as image:
            return image.mode == "LAB"
    except UnreadableImageError:
        return False


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

    def reopened(self) -> _PillowRaster:
        return _PillowRaster(self._pixels)

    def close(self) -> None:
        del self._pixels


class _VipsRaster(ByRows):
    def __init__(self, source: Source) -> None:
        import pyvips

        options = dict(fail_on="error")
        image = pyvips.Image.new_from_file(str(source.path), access="sequential", **options)
        # By its content a file may be a drawing or a document, which untiled images are not either.
        if image.get("vips-loader") not in _LOADERS:
            raise DamagedError("not an image, or of a format that is not supported")
        turned = image.get_typeof("orientation") and image.get("orientation") > 1
        kind = _not_by_rows(source.path)
        if kind is not None and image.width * image.height > FULL_PIXELS:
            _say_not_by_rows(kind)
        self._source, self._in_turn = source, not turned and kind is None
        self._eighths = self._in_turn and image.get("vips-loader") == "jpegload"
        if not self._in_turn:
            # Rows do not come in turn: libvips keeps the pixels of large images in a temporary file.
            image = pyvips.Image.new_from_file(str(source.path), access="random", **options).autorot()
        self._open(_as_rgb(image))

    def reopened(self) -> _VipsRaster:
        if self._in_turn:
            return _opened_again(lambda: _VipsRaster(self._source))
        # What was decoded is shared.
        again = copy.copy(self)
        again._open(self._image)
        return again

    def reduced(self, factor: int) -> Raster:
        if not self._eighths or factor % _JPEG_BLOCK:
            return super().reduced(factor)
        eighth = _opened_again(lambda: _EighthOfJpeg(self._source, self.width, self.height))
        return eighth if factor == _JPEG_BLOCK else ReducedRows(eighth, factor // _JPEG_BLOCK)

    def close(self) -> None:
        del self._region, self._image

    def _open(self, image: Any) -> None:
        """Begins at the top of an image of three bands."""
        import pyvips

        ByRows.__init__(self)
        self._image = image
        # One region for all rows: libvips would read ahead, with several threads, if it were asked for an image.
        self._region = pyvips.Region.new(image)
        self.width, self.height = image.width, image.height

    def _read_rows(self, top: int, count: int) -> np.ndarray:
        import pyvips

        rows = np.empty((count, self.width, 3), np.uint8)
        try:
            for start in range(0, count, _ROWS_AT_ONCE):
                some = rows[start : start + _ROWS_AT_ONCE]
                fetched = self._region.fetch(0, top + start, self.width, len(some))
                some[:] = np.frombuffer(fetched, np.uint8).reshape(some.shape)
        except pyvips.Error as error:
            raise DamagedError(f"damaged: {last_line(error.detail)}") from error
        return rows


class _EighthOfJpeg(_VipsRaster):
    """A JPEG, reduced by eight as it is decoded: of each block of its code only the mean is computed.

    For smaller factors the decoder gives something else than means.

    Args:
        source: the file, whose rows come in turn.
        width, height: of the image itself.
    """

    def __init__(self, source: Source, width: int, height: int) -> None:
        import pyvips

        image = pyvips.Image.new_from_file(str(source.path), access="sequential", fail_on="error", shrink=_JPEG_BLOCK)
        self._source, self._full_size = source, (width, height)
        self._in_turn, self._eighths = True, False
        # Blocks at the right and lower edge may reach beyond the image.
        self._open(_as_rgb(image).crop(0, 0, *reduced_size(width, height, _JPEG_BLOCK)))

    def reopened(self) -> _EighthOfJpeg:
        return _opened_again(lambda: _EighthOfJpeg(self._source, *self._full_size))


def _opened_again(build: Callable[[], _VipsRaster]) -> Any:
    """A raster of a file that could be opened before."""
    import pyvips

    try:
        return build()
    except pyvips.Error as error:
        raise DamagedError(f"damaged: {last_line(error.detail)}") from error


def _not_by_rows(path: Path) -> str | None:
    """What makes a file's decoder hold the whole image, whatever is asked for."""
    try:
        with open_without_limit(path) as image:
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
        raise DamagedError(f"{image.format} samples, whose white level is not defined")
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
