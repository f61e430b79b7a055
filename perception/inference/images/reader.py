"""Images of a folder, read whole in worker processes.

Worker processes import this module, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from perception.datasets.images import IMAGE_SUFFIXES
from perception.inference.images.decoding import (
    Decoded,
    InputSize,
    TooLarge,
    beyond_memory,
    decode,
    reduction_factor,
)
from perception.inference.images.gdal_raster import NO_OPTIONS, GdalRaster, SampleOptions, has_gdal, open_gdal
from perception.inference.images.raster import NEEDS_GDAL, dim_remark, for_gdal
from perception.inference.images.sample import ImageSample
from perception.inference.images.windowed import DamagedError
from perception.inference.reading import Deferred, Refused
from perception.inference.scan import Scan, Source, scan


@dataclass(frozen=True)
class ImageReader:
    """Every file that by its name is an image is a source.

    Attributes:
        input_size: what the model resizes to; None when it takes images as they are.
        options: what the user wants of rasters.
    """

    input_size: InputSize | None = None
    options: SampleOptions = NO_OPTIONS

    def scan(self, folder: Path, patterns: Sequence[str], exclude: Path) -> Scan:
        return scan(folder, IMAGE_SUFFIXES, patterns, exclude)

    def read(self, source: Source, alone: bool) -> ImageSample | Refused | Deferred:
        raster = None
        if source.file_size and (self.options.given or for_gdal(source)):
            raster = open_gdal(source, self.options)
        if isinstance(raster, Refused):
            return raster
        if raster is None:
            if self.options.given:
                return Refused(NEEDS_GDAL)
            return self._decoded(source, alone)
        with closing(raster):
            if not raster.plain:
                return self._whole(raster, alone)
            sample = self._decoded(source, alone)
            if isinstance(sample, ImageSample):
                return replace(sample, georeference=raster.georeference, ground_control=raster.ground_control)
            # Pillow lacks some of GDAL's ways to compress.
            return sample if isinstance(sample, Deferred | TooLarge) else self._whole(raster, alone)

    def nbytes(self, sample: ImageSample) -> int:
        return sample.pixels.nbytes

    def _decoded(self, source: Source, alone: bool) -> ImageSample | Refused | Deferred:
        decoded = decode(source, self.input_size, allow_large=alone)
        if isinstance(decoded, TooLarge):
            return _in_parts(decoded)
        if isinstance(decoded, Refused) and for_gdal(source) and not has_gdal():
            return Refused(f"{decoded.reason}; rasterio, which is not installed, reads more kinds of rasters")
        if not isinstance(decoded, Decoded):
            return decoded
        size = decoded.width, decoded.height
        return ImageSample(decoded.pixels, *size, decoded.factor, decoded.factor, remark=dim_remark(source))

    def _whole(self, raster: GdalRaster, alone: bool) -> ImageSample | Refused | Deferred:
        width, height = raster.width, raster.height
        factor = reduction_factor(width, height, self.input_size)
        beyond = beyond_memory(width, height, raster.memory_needed(factor), alone)
        if beyond is not None:
            return _in_parts(beyond) if isinstance(beyond, TooLarge) else beyond
        try:
            pixels, valid = raster.whole(factor)
        except DamagedError as error:
            return Refused(str(error))
        return ImageSample(
            pixels,
            width,
            height,
            factor,
            factor,
            georeference=raster.georeference,
            ground_control=raster.ground_control,
            valid=valid,
            reading=raster.reading,
            remark=raster.remark,
        )


def _in_parts(image: TooLarge) -> TooLarge:
    return TooLarge(f"{image.reason}; --tile reads it in parts")
