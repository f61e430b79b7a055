"""A detector of rotated boxes over an image and its reductions by 2, 4, 8, ..., window by window.

An object that no window of the native image holds is whole in a window of a reduced one. Memory depends on the size of
the windows and, for files that are read by rows, on the width of the image, never on its area.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch

from perception.datasets.windows import Window
from perception.engine.errors import UserError
from perception.engine.memory import returning_freed_memory
from perception.geometry.level_merging import (
    ACROSS_LEVELS,
    WITHIN_LEVEL,
    merge_levels,
    merge_windows,
    to_native,
    without_parts,
)
from perception.geometry.pyramid import GAP, PATCH, Level, contexts_of, pyramid
from perception.inference.attempts import Attempts
from perception.inference.batching import prefetch
from perception.inference.images.detector import Around, Detector, Prepared
from perception.inference.images.gdal_raster import SampleOptions
from perception.inference.images.nodata import without_nodata
from perception.inference.images.overview import read_overview
from perception.inference.images.raster import open_raster
from perception.inference.images.results import Detections, Found
from perception.inference.images.sample import ImageSample
from perception.inference.images.tiles import cut_sides
from perception.inference.images.windowed import DamagedError, Raster
from perception.inference.predicting import SkippedError
from perception.inference.reading import Refused
from perception.inference.scan import Source
from perception.inference.states import KeptState

# What lies beyond the image, where a window does: RGB, about the mean of the images that detectors learn from.
_FILL = (124, 116, 104)


@dataclass(frozen=True)
class Pyramiding:
    """How an image is gone through.

    Attributes:
        patch, gap: side of the windows and overlap of neighbours in pixels, on every level.
        levels: at most so many, the native image among them; None until the image fits into a window.
        within_iou, across_iou: overlap above which two detections of a level, or of two levels, are one object.
        keep_parts: detections that end where their window does stay beside whole ones, as published.
        fuse_at_test: windows of the native image come with what is around them on reduced images.

    Raises:
        UserError: a number is out of its range.
    """

    patch: int = PATCH
    gap: int = GAP
    levels: int | None = None
    within_iou: float = WITHIN_LEVEL
    across_iou: float = ACROSS_LEVELS
    keep_parts: bool = False
    fuse_at_test: bool = False

    def __post_init__(self):
        if self.patch < 32:
            raise UserError(f"patch {self.patch} is below 32 pixels")
        if not 0 <= self.gap < self.patch:
            raise UserError(f"the gap must be at least 0 and below the patch's {self.patch}, not {self.gap}")
        if self.levels is not None and self.levels < 1:
            raise UserError(f"levels {self.levels} is below 1, the native image alone")
        for name in ("within_iou", "across_iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} {getattr(self, name)} is not between 0 and 1")

    def levels_of(self, raster: Raster) -> list[Level]:
        """From the native image on."""
        return pyramid(raster.width, raster.height, self.patch)[: self.levels]

    def windows_of(self, level: Level) -> list[Window]:
        """Row by row, each as far as it is image."""
        corners = level.windows(self.patch, self.gap)
        return [
            Window(x1, y1, min(x2, level.width) - x1, min(y2, level.height) - y1)
            for x1, y1, x2, y2 in sorted(corners.tolist(), key=lambda window: (window[1], window[0]))
        ]


@dataclass(frozen=True)
class _Place:
    """A window of a level; the number counts windows of all levels."""

    number: int
    level: Level
    window: Window


@dataclass(frozen=True)
class _Batch:
    """Some windows of a level, ready for the model, and which of their pixels are data."""

    places: Sequence[_Place]
    valid: Sequence[np.ndarray | None]
    prepared: Sequence[Prepared]


class PyramidPredictor:
    """A :class:`perception.inference.predicting.WholePredictor` of images; a run that was killed goes on in the image.

    Args:
        detector: the model.
        score_thr: detections below it are left out.
        settings: how images are gone through.
        batch_size: windows a batch.
        pictures: whether pictures will be drawn.
        options: what the user wants of rasters.

    Raises:
        UserError: what is around windows is wanted, and the model has no use for it.
    """

    def __init__(
        self,
        detector: Detector,
        score_thr: float,
        settings: Pyramiding,
        batch_size: int,
        pictures: bool,
        options: SampleOptions,
    ) -> None:
        if settings.fuse_at_test:
            _check_fusion(detector, settings)
        self.detector, self._settings, self._options = detector, settings, options
        self._batch_size, self._pictures = batch_size, pictures
        self._attempts = Attempts(lambda batch: detector.predict(batch, score_thr), "window")

    @contextmanager
    def results(
        self, source: Source, kept: KeptState, note: Callable[[str], None], say: Callable[[str], None]
    ) -> Iterator[tuple[ImageSample, Detections]]:
        """An image with its detections."""
        raster = open_raster(source, self._options)
        if isinstance(raster, Refused):
            raise SkippedError(raster.reason)
        if raster.remark:
            say(f"{source.name}: {raster.remark}")
        with closing(raster):
            try:
                # First, so that a damaged file is known before the model has worked for an hour.
                picture, reduction = read_overview(raster) if self._pictures else (np.zeros((1, 1, 3), np.uint8), 1)
                collected = self._collected(source, raster, kept, note, say)
            except DamagedError as error:
                raise SkippedError(str(error)) from error
        found, levels = collected.merged(self._settings)
        yield (
            ImageSample(
                picture,
                raster.width,
                raster.height,
                reduction,
                factor=1,
                tiles=sum(level["windows"] for level in levels),
                levels=levels,
                georeference=raster.georeference,
                ground_control=raster.ground_control,
                reading=raster.reading,
            ),
            found,
        )

    def _collected(
        self,
        source: Source,
        raster: Raster,
        kept: KeptState,
        note: Callable[[str], None],
        say: Callable[[str], None],
    ) -> _Collected:
        """What all windows of all levels yield."""
        levels = self._settings.levels_of(raster)
        places = [(level, window) for level in levels for window in self._settings.windows_of(level)]
        places = [_Place(number, level, window) for number, (level, window) in enumerate(places)]
        collected = _Collected(levels, [sum(place.level == level for place in places) for level in levels])
        done = collected.restore(source, kept)
        started = time.perf_counter()
        with closing(prefetch(self._batches(raster, places[done:], say, source.name), 1)) as batches:
            for batch in returning_freed_memory(batches):
                for place, found in zip(batch.places, self._predicted(batch), strict=True):
                    collected.add(place, found)
                finished = batch.places[-1].number + 1
                rate = (finished - done) / (time.perf_counter() - started)
                factor = batch.places[-1].level.factor
                note(f"{source.name}: window {finished} of {len(places)}, reduced by {factor}, {rate:.2f} windows/s")
                kept.offer(finished, source.name, lambda count=finished: collected.state(source, count))
                kept.save(finished)
        return collected

    def _predicted(self, batch: _Batch) -> Iterator[Detections]:
        """In pixels of the windows."""
        for place, valid, found in zip(batch.places, batch.valid, self._attempts.predict(batch.prepared)):
            if isinstance(found, Refused):
                level, window = place.level, place.window
                where = f"window at ({window.left}, {window.top}) of the image reduced by {level.factor}"
                raise SkippedError(f"{where}: {found.reason}")
            yield without_nodata(_rotated(found), valid)

    def _batches(
        self, raster: Raster, places: Sequence[_Place], say: Callable[[str], None], name: str
    ) -> Iterator[_Batch]:
        """Windows level by level, each level read from its top."""
        said = set()
        for level in dict.fromkeys(place.level for place in places):
            with ExitStack() as opened:
                view = opened.enter_context(closing(_view(raster, level.factor)))
                if view.remark not in ("", raster.remark, *said):
                    said.add(view.remark)
                    say(f"{name}: {view.remark}")
                surroundings = _Surroundings(raster, self._settings, opened) if self._fuses(level) else None
                those = [place for place in places if place.level == level]
                for start in range(0, len(those), self._batch_size):
                    yield self._batch(view, those[start : start + self._batch_size], surroundings)

    def _fuses(self, level: Level) -> bool:
        return self._settings.fuse_at_test and level.factor == 1

    def _batch(self, view: Raster, places: Sequence[_Place], surroundings: _Surroundings | None) -> _Batch:
        prepared, valid = [], []
        for place in places:
            window, size = place.window, (self._settings.patch, self._settings.patch)
            pixels = _filled(view.read(window), 0, 0, *size)
            valid.append(_valid(view.valid(window), window, *size))
            around = None if surroundings is None else surroundings.of(window)
            try:
                prepared.append(self.detector.prepare_window(pixels, "window", place.level.factor, around))
            except Exception as error:  # pipelines fail in their own ways on odd sizes; the user gets the reason
                raise SkippedError(f"the test pipeline fails on it: {type(error).__name__}: {error}") from error
        return _Batch(places, valid, prepared)


class _Surroundings:
    """What is around windows of the native image, which come from the top.

    Args:
        raster: the image.
        settings: how it is gone through.
        opened: closes what is opened.
    """

    def __init__(self, raster: Raster, settings: Pyramiding, opened: ExitStack) -> None:
        self._raster, self._settings, self._opened = raster, settings, opened
        self._views: dict[int, Raster] = {}

    def of(self, window: Window) -> Around:
        """One window's."""
        contexts = contexts_of(self._raster.width, self._raster.height, window.left, window.top, self._settings.patch)
        images = []
        for context in contexts:
            if context.factor not in self._views:
                view = self._opened.enter_context(closing(self._raster.reduced(context.factor)))
                self._views[context.factor] = view
            pixels = _crop(self._views[context.factor], context.left, context.top, context.width, context.height)
            images.append(torch.from_numpy(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR).transpose(2, 0, 1).copy()))
        return Around(images, contexts)


@dataclass(frozen=True)
class _OfWindow:
    """Detections (N, 6) of a window of a level in pixels of the native image, their labels, and which the window cuts
    off.
    """

    factor: int
    boxes: torch.Tensor
    labels: torch.Tensor
    cut: torch.Tensor

    def __getitem__(self, kept: torch.Tensor) -> _OfWindow:
        return _OfWindow(self.factor, self.boxes[kept], self.labels[kept], self.cut[kept])


@dataclass
class _Collected:
    """Detections of all windows.

    Attributes:
        levels: from the native image on.
        windows: how many each has.
    """

    levels: Sequence[Level]
    windows: Sequence[int]
    _found: list[_OfWindow] = field(default_factory=list)

    def add(self, place: _Place, found: Detections) -> None:
        """Notes what was found in a window, in its pixels."""
        level, window = place.level, place.window
        numbers = torch.from_numpy(np.column_stack([found.boxes, found.scores])).float().reshape(-1, 6)
        bounds = found.bounds() + np.array([window.left, window.top] * 2)
        cut = torch.from_numpy(cut_sides(bounds, window, level.width, level.height).any(1))
        boxes = to_native(numbers, (window.left, window.top), level.factor)
        self._found.append(_OfWindow(level.factor, boxes, torch.from_numpy(found.labels), cut))

    def merged(self, settings: Pyramiding) -> tuple[Detections, list[dict[str, int]]]:
        """Detections of the image, best first, and what each level has given to them."""
        labels = sorted({int(label) for found in self._found for label in found.labels.unique()})
        boxes, of_boxes, given = [torch.zeros(0, 6)], [torch.zeros(0, dtype=torch.long)], [0] * len(self.levels)
        for label in labels:
            found = [of_window[of_window.labels == label] for of_window in self._found]
            if not settings.keep_parts:
                found = _without_parts(found)
            levels = [
                merge_windows([one.boxes for one in found if one.factor == level.factor], settings.within_iou)
                for level in self.levels
            ]
            merged = merge_levels(levels, settings.across_iou)
            given = [count + _count(level, merged) for count, level in zip(given, levels)]
            boxes.append(merged)
            of_boxes.append(torch.full((len(merged),), label))
        joined = torch.cat(boxes)
        order = torch.argsort(joined[:, 5], descending=True, stable=True)
        numbers, numbers_of = joined[order].numpy(), torch.cat(of_boxes)[order].numpy()
        levels = [
            {"factor": level.factor, "windows": windows, "detections": detections}
            for level, windows, detections in zip(self.levels, self.windows, given)
        ]
        return Detections(numbers[:, :5].copy(), numbers[:, 5].copy(), numbers_of), levels

    def state(self, source: Source, done: int) -> dict:
        """What a run needs that goes on after so many windows."""
        found = [(one.factor, one.boxes, one.labels, one.cut) for one in self._found]
        return {**_version(source), "done": done, "found": found}

    def restore(self, source: Source, kept: KeptState) -> int:
        """Goes on where the state was taken that an earlier run has kept of this source; how many windows are done."""
        _, state = kept.load()
        version = _version(source)
        if not isinstance(state, dict) or {key: state.get(key) for key in version} != version:
            return 0
        self._found = [_OfWindow(*one) for one in state["found"]]
        return state["done"]


def _version(source: Source) -> dict[str, int]:
    """What changes when a file does."""
    return {"file_size": source.file_size, "modified": source.modified()}


def _without_parts(found: Sequence[_OfWindow]) -> list[_OfWindow]:
    """The same without detections that are parts of others."""
    stay = without_parts(torch.cat([one.boxes for one in found]), torch.cat([one.cut for one in found]))
    return [one[kept] for one, kept in zip(found, stay.split([len(one.boxes) for one in found]))]


def _count(of_level: torch.Tensor, merged: torch.Tensor) -> int:
    """How many rows of a level are among the merged ones."""
    rows = set(map(tuple, merged.tolist()))
    return sum(tuple(row) in rows for row in of_level.tolist())


def _check_fusion(detector: Detector, settings: Pyramiding) -> None:
    if not detector.fuses:
        raise UserError("fuse_at_test needs a model that fuses levels, which this one does not")
    size = detector.input_size
    if size is not None and (size.width, size.height) != (settings.patch, settings.patch):
        raise UserError(
            f"fuse_at_test needs windows at their own resolution, but the test pipeline resizes to {size.width} x "
            f"{size.height}: take the Resize out of it, or pass --patch {size.width}"
        )


def _rotated(found: Found) -> Detections:
    if not isinstance(found, Detections) or not found.rotated:
        what = "upright boxes" if isinstance(found, Detections) else type(found).__name__
        raise UserError(f"a pyramid of images takes detectors of rotated boxes; this model yields {what}")
    return found


def _view(raster: Raster, factor: int) -> Raster:
    """An image that is reduced by a factor, to be read from its top."""
    return raster.reopened() if factor == 1 else raster.reduced(factor)


def _crop(view: Raster, left: int, top: int, width: int, height: int) -> np.ndarray:
    """A rectangle that may reach beyond the image."""
    x1, y1 = (min(max(start, 0), length - 1) for start, length in ((left, view.width), (top, view.height)))
    x2, y2 = max(x1 + 1, min(left + width, view.width)), max(y1 + 1, min(top + height, view.height))
    pixels = view.read(Window(x1, y1, x2 - x1, y2 - y1))
    return _filled(pixels, x1 - left, y1 - top, width, height)


def _filled(pixels: np.ndarray, left: int, top: int, width: int, height: int) -> np.ndarray:
    """Pixels at a place of a larger rectangle, the rest of which is filled."""
    if pixels.shape[:2] == (height, width):
        return np.ascontiguousarray(pixels)
    filled = np.full((height, width, 3), _FILL, np.uint8)
    filled[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return filled


def _valid(valid: np.ndarray | None, window: Window, width: int, height: int) -> np.ndarray | None:
    """Which pixels of a filled window are data; None when all are."""
    if valid is None and (window.width, window.height) == (width, height):
        return None
    filled = np.zeros((height, width), bool)
    filled[: window.height, : window.width] = True if valid is None else valid
    return filled
