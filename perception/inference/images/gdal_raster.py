"""Rasters through rasterio: GeoTIFF and whatever else GDAL opens, of any number of bands and any type of samples."""

from __future__ import annotations

import copy
import importlib.util
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from perception.datasets.images import orientation_of_file
from perception.datasets.windows import Window
from perception.inference.images.bands import choose_bands
from perception.inference.images.overviews import NO_AVERAGES, agree
from perception.inference.images.sample import Georeference, GroundControl
from perception.inference.images.tones import SampleFacts, Shift, choose_tones
from perception.inference.images.windowed import DamagedError, InBlocks, Raster, last_line, reduced_size
from perception.inference.reading import Refused
from perception.inference.scan import Source

# GDAL converts them by rules of its own; other readers share one.
_NOT_HERE = ("CMYK", "CIELAB")
_REFERRING = ("VRT", "GTI", "STACIT", "STACTA", "WCS", "WMS", "WMTS", "OGCAPI", "HTTP", "EEDAI", "DAAS", "PLMOSAIC")
_CACHE_MB = 64
# Of larger images, so many windows of this size along each axis show what samples there are.
_WINDOWS, _WINDOW = 8, 128
# Samples of a band that are averaged at a time, about; at least one row of blocks is.
_BAND_SAMPLES = 4 * 2**20


@dataclass(frozen=True)
class SampleOptions:
    """What the user wants of rasters: low and high sample, for all bands or for each; bands from 1, three or one."""

    ranges: tuple[tuple[float, float], ...] | None = None
    bands: tuple[int, ...] | None = None

    @property
    def given(self) -> bool:
        return self.ranges is not None or self.bands is not None


NO_OPTIONS = SampleOptions()


def has_gdal() -> bool:
    return importlib.util.find_spec("rasterio") is not None


def open_gdal(source: Source, options: SampleOptions) -> GdalRaster | Refused | None:
    """Opens a file if rasterio is there and understands it; None is for other readers to try."""
    # Only GDAL leaves orientations to its caller.
    if not has_gdal() or orientation_of_file(source.path) != 1:
        return None
    import rasterio

    try:
        raster = GdalRaster(source, options)
    except rasterio.errors.RasterioIOError:
        return None
    except DamagedError as error:
        return Refused(str(error))
    if raster.elsewhere:
        raster.close()
        return None
    return raster


class GdalRaster(InBlocks):
    """See :class:`perception.inference.images.windowed.Raster`.

    Pixels without data (nodata value, mask band, transparent, not a number) are black, except in 8-bit images.

    Attributes:
        plain: every reader sees it like this one: 8-bit grey, colours or palette, without nodata.
        elsewhere: other readers have to take it.

    Raises:
        DamagedError: it cannot be shown; the message is the reason.
    """

    def __init__(self, source: Source, options: SampleOptions) -> None:
        super().__init__()
        self._path = source.path
        with gdal() as rasterio:
            self._file = rasterio.open(source.path)
        try:
            # Some formats only name other files, or places in the network: they must be meant.
            if self._file.driver in _REFERRING and source.path.suffix.lower() != ".vrt":
                raise DamagedError("it refers to other files; such a file has to be named .vrt")
            self.width, self.height = self._file.width, self._file.height
            tags = self._file.tags(ns="IMAGE_STRUCTURE")
            self.elsewhere = tags.get("SOURCE_COLOR_SPACE") in _NOT_HERE
            self._white_is_zero = tags.get("MINISWHITE") == "YES"
            self._choose_bands(options)
            self._choose_tones(options)
        except BaseException:
            self._file.close()
            raise
        self.striped = self._file.block_shapes[0][1] >= self.width
        self.plain = (
            isinstance(self._tones, Shift)
            and self._kind == np.uint8
            and not (self._masked or options.given)
            and self._bands == tuple(range(1, self._file.count + 1))
        )
        self._place()

    def reopened(self, **options: str) -> GdalRaster:
        again = copy.copy(self)
        InBlocks.__init__(again)
        with gdal() as rasterio:
            try:
                again._file = rasterio.open(self._path, **options)
            except rasterio.errors.RasterioIOError as error:
                raise DamagedError(f"damaged: {last_line(str(error.__cause__ or error))}") from error
        return again

    def reduced(self, factor: int) -> Raster:
        """See :meth:`Raster.reduced`. Samples are averaged, as far as they are data, before they become 8-bit pixels;
        overviews that the file has are used, if they are averages.
        """
        if self._colours is not None:  # samples are indices
            return super().reduced(factor)
        full, remark = self.reopened(), ""
        overviews = self._file.overviews(self._bands[0])
        if overviews:
            plain = self.reopened(OVERVIEW_LEVEL="NONE")
            by_overview, anew = (_Averages(one, overviews[0]) for one in (full, plain))
            unused = plain
            if not agree(by_overview, anew):
                full, unused, remark = plain, full, NO_AVERAGES
            unused.close()
        return _Averages(full, factor, remark)

    def close(self) -> None:
        self._file.close()

    def whole(self, factor: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The image, with both sides divided by a factor: pixels as from `read`, and what of it is data.

        Raises:
            DamagedError: the file cannot be read.
        """
        channels = self._channels(Window(0, 0, self.width, self.height), factor)
        return np.ascontiguousarray(channels[..., :3]), channels[..., 3] > 0 if self._masked else None

    def memory_needed(self, factor: int) -> int:
        """Bytes that `whole` takes at its peak."""
        samples = len(self._bands) * self._kind.itemsize
        # A band at a time as float64, its 8-bit results, and those of all bands in both orders.
        return (self.width // factor + 1) * (self.height // factor + 1) * (samples + 3 * 8 + 2 * 4)

    def _choose_bands(self, options: SampleOptions) -> None:
        colours = [colour.name for colour in self._file.colorinterp]
        try:
            bands = choose_bands(colours, self._file.descriptions, options.bands)
        except ValueError as error:
            raise DamagedError(str(error)) from error
        self._bands = bands.indexes
        self.remark = bands.remark
        self._kind = np.dtype(self._file.dtypes[self._bands[0] - 1])
        self._alpha = next((index + 1 for index, colour in enumerate(colours) if colour == "alpha"), None)
        with gdal() as rasterio:
            all_valid = rasterio.enums.MaskFlags.all_valid
            flags = [self._file.mask_flag_enums[band - 1] for band in self._bands]
        self._by_flags = any(all_valid not in of_band for of_band in flags)
        self._masked = self._by_flags or self._alpha is not None or self._kind.kind == "f"

    def _choose_tones(self, options: SampleOptions) -> None:
        # GDAL makes a palette of grey that goes from white to black.
        self._colours = self._palette() if len(self._bands) == 1 and not self._white_is_zero else None
        if self._colours is not None:
            if options.ranges is not None:
                raise DamagedError("its samples are indices of a palette, to which --range does not apply")
            self._tones = Shift(8)
            return
        tags = [self._file.tags(band) for band in self._bands]
        bits = self._file.tags(self._bands[0], ns="IMAGE_STRUCTURE").get("NBITS")
        facts = SampleFacts(
            kind=self._kind,
            bits=None if bits is None else int(bits),
            statistics=_statistics(tags),
            scales=tuple(self._file.scales[band - 1] for band in self._bands),
            offsets=tuple(self._file.offsets[band - 1] for band in self._bands),
            some=[] if self._kind == np.uint8 or options.ranges is not None else self._some(),
        )
        try:
            self._tones, remark = choose_tones(facts, options.ranges)
        except ValueError as error:
            raise DamagedError(str(error)) from error
        self.remark = "; ".join(filter(None, (remark, self.remark)))
        if not isinstance(self._tones, Shift) or self._bands != tuple(range(1, self._file.count + 1)):
            self.reading = {"bands": list(self._bands)}
            if not isinstance(self._tones, Shift):
                self.reading["range"] = [list(limits) for limits in self._tones.ranges]

    def _some(self) -> list[np.ndarray]:
        """Samples of each band that are data, from all over the image."""
        parts = [Window(0, 0, self.width, self.height)]
        if self.width * self.height > (_WINDOWS * _WINDOW) ** 2:
            columns, rows = _starts(self.width), _starts(self.height)
            parts = [Window(x, y, min(_WINDOW, self.width), min(_WINDOW, self.height)) for y in rows for x in columns]
        found = []
        for part in parts:
            samples = self._samples(part)
            found.append(samples[:, self._valid(part, samples)])
        return list(np.concatenate(found, 1))

    def _channels(self, window: Window, factor: int = 1) -> np.ndarray:
        samples = self._samples(window, factor)
        if self._colours is not None:
            pixels = self._colours[samples[0]]
        else:
            tones = self._tones(samples)
            if self._white_is_zero:
                tones = 255 - tones
            pixels = np.broadcast_to(tones, (3, *tones.shape[1:])).transpose(1, 2, 0)
        if not self._masked:
            return np.ascontiguousarray(pixels)
        valid = self._valid(window, samples, factor)
        if self._kind != np.uint8:
            pixels = np.where(valid[..., None], pixels, 0)
        return np.concatenate([pixels, np.where(valid, 255, 0).astype(np.uint8)[..., None]], 2)

    def _samples(self, window: Window, factor: int = 1) -> np.ndarray:
        """Samples (bands, height, width) of a window, averaged if there is a factor and they are no indices."""
        averaging = "average" if self._colours is None else "nearest"
        return self._read(self._file.read, self._bands, window, factor, averaging)

    def _valid(self, window: Window, samples: np.ndarray, factor: int = 1) -> np.ndarray:
        """What of a window is data: bool (height, width)."""
        valid = np.ones(samples.shape[1:], bool)
        if self._by_flags:
            valid &= (self._read(self._file.read_masks, self._bands, window, factor) > 0).any(0)
        elif self._alpha is not None:
            valid &= self._read(self._file.read, [self._alpha], window, factor)[0] > 0
        if self._kind.kind == "f":
            valid &= np.isfinite(samples).all(0)
        return valid

    def _read(
        self,
        read: Callable[..., np.ndarray],
        bands: Sequence[int],
        window: Window,
        factor: int,
        resampling: str = "nearest",
    ) -> np.ndarray:
        with gdal() as rasterio:
            place: dict[str, Any] = {
                "window": rasterio.windows.Window(window.left, window.top, window.width, window.height)
            }
            if factor > 1:
                place["out_shape"] = (len(bands), -(-window.height // factor), -(-window.width // factor))
                place["resampling"] = rasterio.enums.Resampling[resampling]
            try:
                return read(list(bands), **place)
            except rasterio.errors.RasterioIOError as error:
                raise DamagedError(f"damaged: {last_line(str(error.__cause__ or error))}") from error

    def _palette(self) -> np.ndarray | None:
        """Colours by index, of a file that holds indices."""
        try:
            colours = self._file.colormap(self._bands[0])
        except ValueError:
            return None
        count = 2 ** (8 * self._kind.itemsize)
        return np.asarray([colours.get(index, (0, 0, 0, 0))[:3] for index in range(count)], np.uint8)

    def _place(self) -> None:
        crs, transform = self._file.crs, self._file.transform
        points, points_crs = self._file.gcps
        if crs or not transform.is_identity:
            self.georeference = Georeference(_name_of(crs) if crs else None, tuple(transform)[:6])
        elif points:
            places = tuple((point.col, point.row, point.x, point.y, point.z or 0.0) for point in points)
            self.ground_control = GroundControl(_name_of(points_crs) if points_crs else None, places)


class _Averages(InBlocks):
    """A raster whose pixels are made from averages of blocks of samples.

    Args:
        full: belongs to this object.
        factor: of the reduction.
        remark: see `Raster`.
    """

    def __init__(self, full: GdalRaster, factor: int, remark: str = "") -> None:
        super().__init__()
        self._full, self._factor, self.remark = full, factor, remark
        self.striped = full.striped
        self.width, self.height = reduced_size(full.width, full.height, factor)

    def reopened(self) -> _Averages:
        return _Averages(self._full.reopened(), self._factor, self.remark)

    def close(self) -> None:
        self._full.close()

    def _channels(self, window: Window) -> np.ndarray:
        factor, full = self._factor, self._full
        left, top = window.left * factor, window.top * factor
        width = min(window.width * factor, full.width - left)
        at_once = max(1, _BAND_SAMPLES // (width * factor))
        bands = []
        for start in range(0, window.height, at_once):
            rows = min(at_once, window.height - start) * factor
            first = top + start * factor
            bands.append(full._channels(Window(left, first, width, min(rows, full.height - first)), factor))
        return np.concatenate(bands)


def _name_of(crs: Any) -> str:
    """A coordinate system by its number, or by its definition."""
    authority = crs.to_authority()
    return f"urn:ogc:def:crs:{authority[0]}::{authority[1]}" if authority else crs.to_wkt()


def _statistics(tags: Sequence[dict[str, str]]) -> list[tuple[float, float]] | None:
    """Least and greatest sample of each band as its tags say, if all say so."""
    try:
        return [(float(some["STATISTICS_MINIMUM"]), float(some["STATISTICS_MAXIMUM"])) for some in tags]
    except (KeyError, ValueError):
        return None


def _starts(length: int) -> list[int]:
    """Where windows along an axis start, evenly spread from end to end."""
    return sorted({round(place) for place in np.linspace(0, max(0, length - _WINDOW), _WINDOWS)})


@contextmanager
def gdal() -> Iterator[Any]:
    """rasterio, with a small cache and without its word on images that lie nowhere."""
    import rasterio
    import rasterio.enums
    import rasterio.errors
    import rasterio.windows

    with rasterio.Env(GDAL_CACHEMAX=_CACHE_MB), warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield rasterio
