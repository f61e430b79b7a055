"""Folders of point clouds in which objects are followed."""

from __future__ import annotations

import argparse
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from perception.datasets.clouds.cloud import Cloud
from perception.engine.checkpoint import load_checkpoint_file, load_weights
from perception.engine.errors import UserError
from perception.engine.memory import keep_freed_memory
from perception.engine.overrides import checked_arguments
from perception.inference.kinds import KINDS, Kind, Running
from perception.inference.loops import Loop
from perception.inference.ordered import Ordered
from perception.inference.scan import Scan
from perception.inference.writing import Summary

from .clusters import Clustering
from .first_boxes import Boxes, read_first_boxes
from .predictor import TrackingPredictor
from .reader import CloudReader
from .showing import CloudsShowing
from .writer import OVERVIEWS, PICTURES, TRACKS, TrackWriter

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}
"""Of coordinates, metres."""


@KINDS.register_module()
class Clouds(Kind):
    """Sequences of point clouds; a config's ``folder_kind = dict(type=Clouds)`` selects it.

    Args:
        boxes: file or folder of the boxes with which targets begin; see :func:`.first_boxes.read_first_boxes`.
        clusters: follow what :class:`.clusters.Clustering` finds in the first cloud of each sequence.
        clustering: its settings.
        columns: names of the columns of raw floats and of arrays.
        unit: of the clouds' coordinates, a key of :data:`UNITS`; boxes and poses are in metres always.
        ahead: where the vehicle's front is in the clouds, degrees from x to y: 90 for a sensor whose y points ahead. It
            turns pictures, and labels of clouds without a calibration; all else stays in the clouds' frame.

    Raises:
        UserError: the columns have no coordinates, or the unit or the direction is none.
    """

    unit, units = "cloud", "clouds"
    outputs = """\
  tracks.json         for each sequence and target: its box in every cloud, score, status, frame of reference
  labels/             SEQUENCE.txt in the format of KITTI's tracking labels
  images/             each cloud from above and over the sensor's shoulder, with boxes and where targets came from
  overviews/          SEQUENCE.gif: the pictures in a row
"""

    def __init__(
        self,
        boxes: str | None = None,
        clusters: bool = False,
        clustering: dict | None = None,
        columns: Sequence[str] | None = None,
        unit: str = "m",
        ahead: float = 0.0,
    ) -> None:
        if columns is not None and not {"x", "y", "z"} <= set(columns):
            raise UserError(f"--columns {','.join(columns)} names no x, y and z")
        if unit not in UNITS:
            raise UserError(f"--unit is one of {', '.join(UNITS)}, not {unit!r}")
        if not math.isfinite(ahead):
            raise UserError(f"--ahead is a number of degrees, not {ahead}")
        self._unit, self._ahead = unit, ahead
        self._boxes = None if boxes is None else Path(boxes)
        checked_arguments(Clustering, clustering or {}, "folder_kind.clustering")
        self._clustering = Clustering(**(clustering or {})) if clusters else None
        self._columns = columns
        self._first: Boxes = {}

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        group = parser.add_argument_group("which targets")
        group.add_argument(
            "--boxes",
            metavar="FILE",
            help='boxes with which targets begin: JSON, {"frame": "sensor", "boxes": [{"cloud", "id", "category", '
            '"box": [x, y, z, l, w, h, yaw]}, ...]}; or labels of KITTI, SEQUENCE.txt or their folder',
        )
        group.add_argument(
            "--init",
            choices=["clusters"],
            help="without boxes: follow what stands on the ground by itself in the first cloud of each sequence and "
            "has the size of an object; no detector, and it knows no categories",
        )
        group = parser.add_argument_group("how clouds are read")
        group.add_argument(
            "--columns",
            type=lambda text: text.split(","),
            help="names of the columns of .bin files and of arrays, e.g. x,y,z,intensity,time (default: "
            "x,y,z,intensity, and ring for .pcd.bin)",
        )

        group.add_argument(
            "--unit",
            choices=list(UNITS),
            help="of the clouds' coordinates (default: m); boxes, poses and results are in metres",
        )
        group.add_argument(
            "--ahead",
            type=float,
            metavar="DEGREES",
            help="where the vehicle's front is in the clouds, from x to y (default: 0, x is ahead; 90 for nuScenes' "
            "sensor): turns pictures, and labels of clouds without a calibration",
        )

    @classmethod
    def options(cls, args: argparse.Namespace) -> dict[str, Any]:
        if args.boxes and args.init:
            raise UserError("--boxes and --init exclude each other")
        given = {"boxes": args.boxes, "clusters": True if args.init else None, "columns": args.columns}
        given |= {"unit": args.unit, "ahead": args.ahead}
        return {key: value for key, value in given.items() if value is not None}

    def reader(self, predictor: TrackingPredictor | None) -> CloudReader:
        return _BoxesReader(self) if predictor is None else CloudReader(self._columns, UNITS[self._unit])

    def predictor(self, cfg: Config, checkpoint: Path, running: Running) -> TrackingPredictor:
        init_default_scope(cfg.get("default_scope", "mmdet"))
        model = MODELS.build(cfg.model)
        load_weights(model, load_checkpoint_file(checkpoint), checkpoint)
        if running.device.type == "cpu":
            keep_freed_memory()
        return TrackingPredictor(model.to(running.device).eval(), self._first, self._clustering)

    def loop(self, running: Running) -> Loop:
        return Ordered(self.unit, running.workers)

    def writers(self, names: Sequence[str], pictures: bool) -> Sequence[Summary]:
        return [TrackWriter(names, pictures, math.radians(self._ahead))]

    def settings(self) -> dict[str, Any]:
        return {
            "boxes": None if self._boxes is None else str(self._boxes),
            "boxes_sha256": None if self._boxes is None else _digest(self._boxes),
            "clustering": None if self._clustering is None else vars(self._clustering),
            "columns": None if self._columns is None else list(self._columns),
            "unit": self._unit,
            "ahead": self._ahead,
        }

    def remark(self, sample: Cloud) -> str:
        return sample.note

    def showing(self) -> CloudsShowing:
        return CloudsShowing()

    def places(self, pictures: bool) -> dict[str, str]:
        shown = {"tracks": TRACKS}
        return {**shown, "pictures": PICTURES, "overviews": OVERVIEWS} if pictures else shown

    def begin_with(self, found: Scan) -> None:
        """Looks for the boxes of the clouds that were found.

        Raises:
            UserError: there are none, or they cannot be used.
        """
        if self._boxes is not None:
            self._first = read_first_boxes(self._boxes, found.sources)
        elif self._clustering is None:
            raise UserError(
                "which objects are to be followed? --boxes FILE has their first boxes; without any, --init clusters "
                "takes what stands on the ground by itself"
            )


class _BoxesReader(CloudReader):
    """The reader of the process that scans: it looks for first boxes as well."""

    def __init__(self, kind: Clouds) -> None:
        super().__init__(kind._columns, UNITS[kind._unit])
        self._kind = kind

    def scan(self, folder: Path, patterns: Sequence[str], exclude: Path) -> Scan:
        found = super().scan(folder, patterns, exclude)
        if found.sources:
            self._kind.begin_with(found)
        return found


def _digest(path: Path) -> str | None:
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path] if path.is_file() else []
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode(errors="surrogateescape") + file.read_bytes())
    return digest.hexdigest()
