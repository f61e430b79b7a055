"""Folders of images, for every detector and segmenter of mmdet, mmrotate and mmseg."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from mmengine.config import Config

from perception.engine.checkpoint import load_checkpoint_file
from perception.engine.errors import UserError
from perception.inference.images.box_writer import BoxWriter
from perception.inference.images.coco_results import RESULTS, CocoResults
from perception.inference.images.detector import Detector, Prepared, classes_and_palette, identity
from perception.inference.images.dota_files import DotaFiles
from perception.inference.images.gdal_raster import NO_OPTIONS, SampleOptions
from perception.inference.images.image_writer import PICTURES, Labels
from perception.inference.images.label_map_writer import LABEL_MAPS, LabelMapWriter
from perception.inference.images.nodata import without_nodata
from perception.inference.images.options import add_image_options, image_options
from perception.inference.images.reader import ImageReader
from perception.inference.images.results import Found
from perception.inference.images.sample import ImageSample
from perception.inference.images.segment_writer import PANOPTIC, SegmentWriter
from perception.inference.images.showing import ImagesShowing
from perception.inference.images.tiled import TiledPredictor
from perception.inference.images.tiles import Tiling
from perception.inference.kinds import KINDS, Kind, Running
from perception.inference.loops import Loop
from perception.inference.scan import Source
from perception.inference.streamed import Streamed
from perception.inference.writing import Summary


class HasDetector(Protocol):
    """A predictor of images."""

    detector: Detector


@KINDS.register_module()
class Images(Kind):
    """Images, whole or in tiles.

    Args:
        score_thr: detections below it are neither written nor drawn.
        tiling: cut images into tiles, for those that are larger than what the model takes.
        merge_iou: overlap above which detections of two tiles are one object; by default 0.1 for rotated boxes, as in
            DOTA's evaluation, and 0.5 for others.
        samples: how samples of rasters become pixels, as far as the user wants it otherwise than their files say.

    Raises:
        UserError: a number is out of its range.
    """

    unit, units = "image", "images"
    outputs = """\
  predictions.json    COCO: images, categories, and annotations with bbox [x, y, w, h] in pixels of the image, and
                      score; rbox [cx, cy, w, h, radians] and corners for rotated boxes, run lengths for masks
  images/             the pictures, in the folder tree of FOLDER
  labels/             semantic segmentation: the class of each pixel, as PNG with a palette (255: none, or no data),
                      and as GeoTIFF for an image that lies somewhere
  panoptic/           panoptic segments, as PNG in COCO's code
  dota/               rotated boxes: Task1_CLASS.txt with "image score x1 y1 ... x4 y4", as for DOTA's server
  geojson/            rotated boxes, and whatever --tile finds or lies on a map, as polygons in pixels; .crs.geojson in
                      the coordinate system of an image that has one

--tile reads huge images in parts, no more than a few in memory; `pip install rasterio pyvips pyvips-binary`
provides the readers (rasterio for GeoTIFF, pyvips for JPEG and PNG) where `make setup` has not. Pictures of them are
reduced to at most 4096 pixels a side.
"""

    def __init__(
        self,
        score_thr: float = 0.3,
        tiling: Tiling | None = None,
        merge_iou: float | None = None,
        samples: SampleOptions = NO_OPTIONS,
    ) -> None:
        for name, value in (("score_thr", score_thr), ("merge_iou", merge_iou)):
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"{name} {value} is not between 0 and 1")
        self._score_thr, self._tiling, self._merge_iou, self._samples = score_thr, tiling, merge_iou, samples

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        add_image_options(parser)

    @classmethod
    def options(cls, args: argparse.Namespace) -> dict[str, Any]:
        return image_options(args)

    def identity(self, cfg: Config) -> Any:
        if not cfg.get("model"):
            raise UserError(f"config {cfg.filename} describes no model")
        return identity(cfg)

    def settings(self) -> dict[str, Any]:
        return {
            "score_thr": self._score_thr,
            "tile": self._tiling and self._tiling.size,
            "overlap": self._tiling and self._tiling.overlap,
            "merge_iou": self._merge_iou,
            "range": self._samples.ranges and [list(limits) for limits in self._samples.ranges],
            "bands": self._samples.bands and list(self._samples.bands),
        }

    def reader(self, predictor: HasDetector | None) -> ImageReader:
        return ImageReader(predictor and predictor.detector.input_size, self._samples)

    def predictor(self, cfg: Config, checkpoint: Path, running: Running) -> HasDetector:
        detector = Detector(cfg, checkpoint, running.device)
        if self._tiling is None:
            return WholeImages(detector, self._score_thr)
        return TiledPredictor(
            detector,
            self._score_thr,
            self._tiling,
            running.batch_size,
            self._merge_iou,
            running.pictures,
            self._samples,
        )

    def loop(self, running: Running) -> Loop:
        return super().loop(running) if self._tiling is None else Streamed()

    def meta(self, cfg: Config, checkpoint: Path, predictor: HasDetector | None) -> Labels:
        if predictor is not None:
            return Labels(predictor.detector.classes, predictor.detector.palette)
        return Labels(*classes_and_palette(load_checkpoint_file(checkpoint), cfg))

    def writers(self, names: Sequence[str], pictures: bool) -> Sequence[Summary]:
        writers = [writer(names, pictures) for writer in (BoxWriter, LabelMapWriter, SegmentWriter)]
        return [*writers, CocoResults(writers), DotaFiles(names)]

    def remark(self, sample: ImageSample) -> str:
        return sample.remark

    def showing(self) -> ImagesShowing:
        return ImagesShowing()

    def places(self, pictures: bool) -> dict[str, str]:
        shown = {"predictions": RESULTS, "label maps": LABEL_MAPS, "segments": PANOPTIC}
        return {**shown, "pictures": PICTURES} if pictures else shown


@dataclass(frozen=True)
class _PreparedImage:
    """An image for the model, and which of its pixels are data."""

    prepared: Prepared
    valid: np.ndarray | None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.prepared.shape


class WholeImages:
    """A :class:`perception.inference.predicting.Predictor` of images that the reader has read whole.

    Args:
        detector: the model.
        score_thr: detections below it are left out.
    """

    def __init__(self, detector: Detector, score_thr: float) -> None:
        self.detector, self._score_thr = detector, score_thr

    def prepare(self, source: Source, sample: ImageSample) -> _PreparedImage:
        return _PreparedImage(self.detector.prepare(sample.pixels, source.name), sample.valid)

    def predict(self, batch: Sequence[_PreparedImage]) -> list[Found]:
        found = self.detector.predict([image.prepared for image in batch], self._score_thr)
        return [without_nodata(one, image.valid) for one, image in zip(found, batch)]
