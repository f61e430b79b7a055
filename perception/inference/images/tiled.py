"""A detector or segmenter over huge images: windows are read, run in batches and put together again.

Memory depends on the size of the tiles and, for files that are read by rows, on the width of the image, never on its
area: what is kept of an image is its detections, and a picture of at most `overview.OVERVIEW` pixels a side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain

import cv2
import numpy as np

from perception.engine.errors import UserError
from perception.engine.memory import returning_freed_memory
from perception.inference.attempts import Attempts
from perception.inference.batching import prefetch
from perception.inference.images.detector import Detector, Prepared
from perception.inference.images.gdal_raster import SampleOptions
from perception.inference.images.merging import TileMerger
from perception.inference.images.nodata import without_nodata
from perception.inference.images.overview import overview_factor
from perception.inference.images.raster import open_raster
from perception.inference.images.results import UNLABELLED, Detections, Found, LabelMap, Segments
from perception.inference.images.sample import ImageSample
from perception.inference.images.tiles import Tile, Tiling, tiles
from perception.inference.images.windowed import DamagedError, Raster
from perception.inference.predicting import SkippedError
from perception.inference.reading import Refused
from perception.inference.scan import Source
from perception.inference.states import KeptState


@dataclass(frozen=True)
class _Batch:
    """Some tiles of an image, ready for the model."""

    tiles: Sequence[Tile]
    pixels: Sequence[np.ndarray]
    valid: Sequence[np.ndarray | None]
    prepared: Sequence[Prepared]


class TiledPredictor:
    """A :class:`perception.inference.predicting.WholePredictor` of images.

    Args:
        detector: the model.
        score_thr: detections below it are left out.
        tiling: how images are cut.
        batch_size: tiles a batch.
        merge_iou: overlap above which detections of two tiles are one object; see :class:`TileMerger`.
        pictures: whether pictures will be drawn.
        options: what the user wants of rasters.
    """

    def __init__(
        self,
        detector: Detector,
        score_thr: float,
        tiling: Tiling,
        batch_size: int,
        merge_iou: float | None,
        pictures: bool,
        options: SampleOptions,
    ) -> None:
        self.detector, self._options = detector, options
        self._tiling, self._batch_size, self._merge_iou, self._pictures = tiling, batch_size, merge_iou, pictures
        self._attempts = Attempts(lambda batch: detector.predict(batch, score_thr), "image")

    @contextmanager
    def results(
        self, source: Source, kept: KeptState, note: Callable[[str], None], say: Callable[[str], None]
    ) -> Iterator[tuple[ImageSample, Detections | LabelBands]]:
        """An image with its detections, or with its label map, whose tiles are run as its rows are asked for.

        An image that was interrupted is run again.
        """
        raster = open_raster(source, self._options)
        if isinstance(raster, Refused):
            raise SkippedError(raster.reason)
        if raster.remark:
            say(f"{source.name}: {raster.remark}")
        cut = tiles(raster.width, raster.height, self._tiling)
        overview = _Overview(raster.width, raster.height) if self._pictures else _NoOverview()
        sample = ImageSample(
            overview.pixels,
            raster.width,
            raster.height,
            overview.factor,
            factor=1,
            tiles=len(cut),
            georeference=raster.georeference,
            ground_control=raster.ground_control,
            reading=raster.reading,
        )
        with closing(raster), closing(prefetch(self._batches(raster, cut), 1)) as batches:
            results = self._results(returning_freed_memory(batches), overview)
            results = _noted(results, source.name, len(cut), note)
            try:
                first = next(results)
                yield sample, self._joined(chain([first], results), raster, overview, type(first[1]))
            except DamagedError as error:
                raise SkippedError(str(error)) from error

    def _joined(
        self, results: Iterator[tuple[Tile, Found]], raster: Raster, overview: _Overview, kind: type
    ) -> Detections | LabelBands:
        if kind is LabelMap:
            return LabelBands(overview.labels, results)
        if kind is Segments:
            raise UserError("panoptic segments of tiles cannot be joined; run this model without --tile")
        merger = TileMerger(raster.width, raster.height, self._merge_iou)
        for tile, found in results:
            merger.add(tile.window, found)
        return merger.merged()

    def _results(self, batches: Iterator[_Batch], overview: _Overview) -> Iterator[tuple[Tile, Found]]:
        """Tiles in their order, with what the model finds in them; they are in the overview then."""
        for batch in batches:
            results = self._attempts.predict(batch.prepared)
            for tile, pixels, valid, found in zip(batch.tiles, batch.pixels, batch.valid, results):
                if isinstance(found, Refused):
                    raise SkippedError(f"tile at ({tile.window.left}, {tile.window.top}): {found.reason}")
                found = without_nodata(found, valid)
                overview.add_pixels(tile, pixels)
                if isinstance(found, LabelMap):
                    overview.add_labels(tile, found)
                yield tile, found

    def _batches(self, raster: Raster, cut: Sequence[Tile]) -> Iterator[_Batch]:
        for start in range(0, len(cut), self._batch_size):
            some = cut[start : start + self._batch_size]
            pixels, valid = [], []
            for tile in some:
                pixels.append(np.ascontiguousarray(raster.read(tile.window)))
                valid.append(raster.valid(tile.window))
            try:
                prepared = [self.detector.prepare(part, "tile") for part in pixels]
            except Exception as error:  # pipelines fail in their own ways on odd sizes; the user gets the reason
                raise SkippedError(f"the test pipeline fails on it: {type(error).__name__}: {error}") from error
            yield _Batch(some, pixels, valid, prepared)


def _noted(
    results: Iterator[tuple[Tile, Found]], name: str, count: int, note: Callable[[str], None]
) -> Iterator[tuple[Tile, Found]]:
    for number, result in enumerate(results, start=1):
        yield result
        note(f"{name}: tile {number} of {count}")


@dataclass(frozen=True)
class LabelBands(LabelMap):
    """Label maps of tiles, put together row of tiles by row of tiles, as they are asked for.

    `labels` are those of the whole image, reduced, and complete once all rows were asked for. `results` are the tiles
    in their order, with their label maps.
    """

    results: Iterator[tuple[Tile, LabelMap]]

    def rows(self, width: int, height: int, factor: int) -> Iterator[np.ndarray]:
        band = np.zeros((0, width), np.uint8)
        for tile, found in self.results:
            core = tile.core
            if core.left == 0:
                band = np.full((core.height, width), UNLABELLED, np.uint8)
            band[:, core.left : core.right] = found.labels[_inside(tile)]
            if core.right == width:
                yield band


class _Overview:
    """A picture of an image whose tiles come in turn, `factor` times as small: its `pixels`, and its `labels`."""

    def __init__(self, width: int, height: int) -> None:
        self.factor = overview_factor(width, height)
        size = (-(-height // self.factor), -(-width // self.factor))
        self.pixels = np.zeros((*size, 3), np.uint8)
        self.labels = np.full(size, UNLABELLED, np.uint8)

    def add_pixels(self, tile: Tile, pixels: np.ndarray) -> None:
        """Takes the core of a tile."""
        rows, columns = self._place(tile)
        size = (columns.stop - columns.start, rows.stop - rows.start)
        self.pixels[rows, columns] = cv2.resize(pixels[_inside(tile)], size, interpolation=cv2.INTER_AREA)

    def add_labels(self, tile: Tile, found: LabelMap) -> None:
        """Takes the core of a tile; a pixel gets the label at its middle."""
        rows, columns = self._place(tile)
        core, window = tile.core, tile.window
        y = (np.arange(rows.start, rows.stop) * self.factor + self.factor // 2).clip(core.top, core.bottom - 1)
        x = (np.arange(columns.start, columns.stop) * self.factor + self.factor // 2).clip(core.left, core.right - 1)
        self.labels[rows, columns] = found.labels[np.ix_(y - window.top, x - window.left)]

    def _place(self, tile: Tile) -> tuple[slice, slice]:
        core = tile.core
        top, left = core.top // self.factor, core.left // self.factor
        return slice(top, -(-core.bottom // self.factor)), slice(left, -(-core.right // self.factor))


class _NoOverview(_Overview):
    """Instead of an overview that nobody will look at."""

    def __init__(self) -> None:
        super().__init__(1, 1)

    def add_pixels(self, tile: Tile, pixels: np.ndarray) -> None:
        pass

    def add_labels(self, tile: Tile, found: LabelMap) -> None:
        pass


def _inside(tile: Tile) -> tuple[slice, slice]:
    """The core's place in the tile's own pixels."""
    top, left = tile.core.top - tile.window.top, tile.core.left - tile.window.left
    return slice(top, top + tile.core.height), slice(left, left + tile.core.width)
