"""A model over huge images: windows are read, run in batches and put together again, one image after the other.

Memory depends on the size of the tiles and, for files that are read by rows, on the width of the image, never on its
area: what is kept of an image is its detections, and a picture of at most `OVERVIEW` pixels a side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass

import cv2
import numpy as np

from perception.engine.errors import UserError
from perception.inference.attempts import Attempts
from perception.inference.batching import prefetch
from perception.inference.decoding import Refused
from perception.inference.detector import Detector, Prepared
from perception.inference.drawing import draw, draw_label_map
from perception.inference.geojson import feature_collection, referenced
from perception.inference.label_png import LabelPngWriter
from perception.inference.merging import TileMerger
from perception.inference.output import GEOJSON_SUFFIXES, OutputFolder
from perception.inference.progress import Progress
from perception.inference.raster import DamagedError, Raster, open_raster
from perception.inference.results import UNLABELLED, Detections, LabelMap, as_record, labelled_record
from perception.inference.scan import Source
from perception.inference.tiles import Tile, Tiling, tiles

OVERVIEW = 4096
"""The longest side of a picture; those of larger images are reduced by a whole factor."""


@dataclass(frozen=True)
class _Batch:
    """Some tiles of an image, ready for the model."""

    tiles: Sequence[Tile]
    pixels: Sequence[np.ndarray]
    prepared: Sequence[Prepared]


class TiledRun:
    """The loop over the images of one job.

    Args:
        detector: the model.
        attempts: runs it.
        output: where results go.
        tiling: how images are cut.
        batch_size: tiles a batch.
        merge_iou: overlap above which detections of two tiles are one object; see :class:`TileMerger`.
        pictures: draw pictures.
    """

    def __init__(
        self,
        detector: Detector,
        attempts: Attempts,
        output: OutputFolder,
        tiling: Tiling,
        batch_size: int,
        merge_iou: float | None,
        pictures: bool,
    ) -> None:
        self._detector, self._attempts, self._output = detector, attempts, output
        self._tiling, self._batch_size, self._merge_iou, self._pictures = tiling, batch_size, merge_iou, pictures

    def go(self, sources: Sequence[Source]) -> dict[str, str]:
        """Runs every image that is not done; returns the files that were skipped, with reasons."""
        skipped = {}
        with closing(Progress(len(sources), sum(map(self._output.has, sources)))) as progress:
            for source in sources:
                if self._output.has(source):
                    continue
                try:
                    self._run_image(source, progress)
                except (DamagedError, _SkippedError) as error:
                    skipped[source.name] = str(error)
                progress.add()
        return skipped

    def _run_image(self, source: Source, progress: Progress) -> None:
        raster = open_raster(source)
        if isinstance(raster, Refused):
            raise _SkippedError(raster.reason)
        width, height = raster.width, raster.height
        cut = tiles(width, height, self._tiling)
        overview = _Overview(width, height) if self._pictures else None
        merger, bands = TileMerger(width, height, self._merge_iou), None
        with closing(raster), ExitStack() as stack:
            for number, (tile, pixels, found) in enumerate(self._results(raster, cut, stack)):
                if overview is not None:
                    overview.add_pixels(tile, pixels)
                if isinstance(found, LabelMap):
                    if bands is None:
                        opened = self._output.label_map(source.name, width, height, self._detector.palette)
                        bands = _LabelBands(stack.enter_context(opened), width)
                    bands.add(tile, found)
                    if overview is not None:
                        overview.add_labels(tile, found)
                elif isinstance(found, Detections):
                    merger.add(tile.window, found)
                else:
                    raise UserError("panoptic segments of tiles cannot be joined; run this model without --tile")
                progress.note(f"{source.name}: tile {number + 1} of {len(cut)}")
        if bands is None:
            self._write_detections(source, raster, len(cut), merger, overview)
        else:
            self._write_label_map(source, raster, len(cut), bands, overview)

    def _results(self, raster: Raster, cut: Sequence[Tile], stack: ExitStack) -> Iterator[tuple]:
        """Tiles in their order, with their pixels and what the model finds in them."""
        for batch in stack.enter_context(closing(prefetch(self._batches(raster, cut), 1))):
            for tile, pixels, found in zip(batch.tiles, batch.pixels, self._attempts.predict(batch.prepared)):
                if isinstance(found, Refused):
                    raise _SkippedError(f"tile at ({tile.window.left}, {tile.window.top}): {found.reason}")
                yield tile, pixels, found

    def _batches(self, raster: Raster, cut: Sequence[Tile]) -> Iterator[_Batch]:
        for start in range(0, len(cut), self._batch_size):
            some = cut[start : start + self._batch_size]
            pixels = [np.ascontiguousarray(raster.read(tile.window)) for tile in some]
            try:
                prepared = [self._detector.prepare(part, "tile") for part in pixels]
            except Exception as error:  # pipelines fail in their own ways on odd sizes; the user gets the reason
                raise _SkippedError(f"the test pipeline fails on it: {type(error).__name__}: {error}") from error
            yield _Batch(some, pixels, prepared)

    def _write_detections(
        self,
        source: Source,
        raster: Raster,
        count: int,
        merger: TileMerger,
        overview: _Overview | None,
    ) -> None:
        classes, found = self._detector.classes, merger.merged()
        if found.masks and raster.width * raster.height >= 2**32:
            raise _SkippedError("COCO's run lengths end at 2^32 pixels, so the masks cannot be written")
        record = as_record(source.name, source.file_size, raster.width, raster.height, 1, found, classes)
        record["tiles"] = count
        polygons = feature_collection(found, 1, classes)
        geojson = {GEOJSON_SUFFIXES[0]: polygons}
        if raster.georeference is not None:
            record["georeference"] = asdict(raster.georeference)
            geojson[GEOJSON_SUFFIXES[1]] = referenced(polygons, raster.georeference)
        picture = None
        if overview is not None:
            shown = found if overview.factor == 1 else found.scaled(1 / overview.factor)
            picture = draw(overview.pixels, shown, classes, self._detector.palette)
        self._output.add(record, picture, geojson)

    def _write_label_map(
        self, source: Source, raster: Raster, count: int, bands: _LabelBands, overview: _Overview | None
    ) -> None:
        classes, size = self._detector.classes, (raster.width, raster.height)
        record = labelled_record(source.name, source.file_size, *size, bands.counts, classes) | {"tiles": count}
        picture = None
        if overview is not None:
            picture = draw_label_map(overview.pixels, LabelMap(overview.labels), classes, self._detector.palette)
        self._output.add(record, picture)


class _SkippedError(Exception):
    """An image cannot be run; the message is the reason."""


class _LabelBands:
    """Label maps of tiles, put together row of tiles by row of tiles.

    Args:
        writer: gets the rows as soon as they are whole.
        width: of the image.
    """

    def __init__(self, writer: LabelPngWriter, width: int) -> None:
        self.counts = np.zeros(256, np.int64)
        self._writer, self._width = writer, width
        self._band = np.zeros((0, width), np.uint8)

    def add(self, tile: Tile, found: LabelMap) -> None:
        """Takes the core of the next tile."""
        core = tile.core
        if core.left == 0:
            self._band = np.full((core.height, self._width), UNLABELLED, np.uint8)
        part = found.labels[_inside(tile)]
        self._band[:, core.left : core.right] = part
        self.counts += np.bincount(part.ravel(), minlength=256)
        if core.right == self._width:
            self._writer.write(self._band)


class _Overview:
    """A picture of an image whose tiles come in turn, `factor` times as small: its `pixels`, and its `labels`."""

    def __init__(self, width: int, height: int) -> None:
        self.factor = -(-max(width, height) // OVERVIEW)
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


def _inside(tile: Tile) -> tuple[slice, slice]:
    """The core's place in the tile's own pixels."""
    top, left = tile.core.top - tile.window.top, tile.core.left - tile.window.left
    return slice(top, top + tile.core.height), slice(left, left + tile.core.width)
