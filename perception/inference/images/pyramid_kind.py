"""Folders of huge images for detectors of long objects: windows of the image, of its half, of its quarter, ..."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmengine.config import Config

from perception.geometry.level_merging import ACROSS_LEVELS, WITHIN_LEVEL
from perception.geometry.pyramid import GAP, PATCH
from perception.inference.images.detector import Detector
from perception.inference.images.gdal_raster import NO_OPTIONS, SampleOptions
from perception.inference.images.kind import Images
from perception.inference.images.options import add_pyramid_options, pyramid_options
from perception.inference.images.pyramid import Pyramiding, PyramidPredictor
from perception.inference.kinds import KINDS, Running
from perception.inference.loops import Loop
from perception.inference.streamed import Streamed


@KINDS.register_module()
class PyramidImages(Images):
    """Images in windows on all levels of their pyramid, for detectors of rotated boxes.

    A recipe chooses it with `folder_kind = dict(type=PyramidImages, patch=1024, gap=200)`.

    Args:
        score_thr: detections below it are neither written nor drawn.
        patch, gap: side of the windows and overlap of neighbours in pixels, on every level.
        levels: at most so many, the native image among them; None until the image fits into a window.
        within_iou, across_iou: overlap above which two detections of a level, or of two levels, are one object.
        keep_parts: detections that end where their window does stay beside whole ones, as published; else those go that
            lie for the most part in a whole one.
        fuse_at_test: windows of the native image come with what is around them on reduced images.
        samples: how samples of rasters become pixels, as far as the user wants it otherwise than their files say.

    Raises:
        UserError: a number is out of its range.
    """

    outputs = """\
  predictions.json    COCO: images, categories, and annotations with bbox [x, y, w, h] in pixels of the image, and
                      score; rbox [cx, cy, w, h, radians] and corners
  images/             the pictures, in the folder tree of FOLDER, reduced to at most 4096 pixels a side
  dota/               Task1_CLASS.txt with "image score x1 y1 ... x4 y4", as for DOTA's server
  geojson/            polygons in pixels; .crs.geojson in the coordinate system of an image that has one
  state/              what an interrupted run goes on with

Images are read in windows, never whole, and reduced as they are read; `pip install rasterio pyvips pyvips-binary`
provides the readers (rasterio for GeoTIFF, pyvips for JPEG and PNG) where `make setup` has not.
"""

    def __init__(
        self,
        score_thr: float = 0.3,
        patch: int = PATCH,
        gap: int = GAP,
        levels: int | None = None,
        within_iou: float = WITHIN_LEVEL,
        across_iou: float = ACROSS_LEVELS,
        keep_parts: bool = False,
        fuse_at_test: bool = False,
        samples: SampleOptions = NO_OPTIONS,
    ) -> None:
        super().__init__(score_thr, samples=samples)
        self._pyramiding = Pyramiding(patch, gap, levels, within_iou, across_iou, keep_parts, fuse_at_test)

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        add_pyramid_options(parser)

    @classmethod
    def options(cls, args: argparse.Namespace) -> dict[str, Any]:
        return pyramid_options(args)

    def identity(self, cfg: Config) -> Any:
        # A run in tiles is never continued as one of these, nor the other way round.
        return {**super().identity(cfg), "folder_kind": type(self).__name__}

    def settings(self) -> dict[str, Any]:
        of_images = super().settings()
        return {**{key: of_images[key] for key in ("score_thr", "range", "bands")}, **asdict(self._pyramiding)}

    def predictor(self, cfg: Config, checkpoint: Path, running: Running) -> PyramidPredictor:
        return PyramidPredictor(
            Detector(cfg, checkpoint, running.device),
            self._score_thr,
            self._pyramiding,
            running.batch_size,
            running.pictures,
            self._samples,
        )

    def loop(self, running: Running) -> Loop:
        return Streamed()
