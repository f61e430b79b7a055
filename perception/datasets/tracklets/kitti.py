"""KITTI tracking (Geiger et al., "Are we ready for autonomous driving?", CVPR 2012) as tracklets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from torch import Tensor

from perception.engine.errors import UserError
from perception.geometry import boxes3d, se3

from .tracklet import Tracklet, TrackletSet, in_order

SPLITS = {"train": tuple(range(17)), "val": (17, 18), "test": (19, 20)}
"""Scenes of the splits that all published single-object tracking uses; all have public labels."""
CATEGORIES = ("Car", "Van", "Pedestrian", "Cyclist")
_PLACEHOLDER = "DontCare"
_COLUMNS = 17


@DATASETS.register_module()
class KittiTracklets(TrackletSet):
    """Tracklets of KITTI's tracking benchmark, in the Velodyne's frame.

    Args:
        data_root: folder with ``calib``, ``label_02`` and ``velodyne`` (KITTI's ``training``).
        split: ``"train"`` (scenes 0-16), ``"val"`` (17, 18) or ``"test"`` (19, 20); or numbers of scenes.
        categories: of the objects.
        calibration: ``"rectified"`` takes boxes from the rectified camera's frame, as KITTI defines it; ``"released"``
            leaves R_rect out, as Open3DSOT's loader does: published scores rest on boxes that are off by some 0.3 m at
            40 m.

    Raises:
        UserError: a folder, a file or a calibration's entry is missing, or a line cannot be read.
    """

    def __init__(
        self,
        data_root: str,
        split: Literal["train", "val", "test"] | Sequence[int] = "train",
        categories: Sequence[str] = CATEGORIES,
        calibration: Literal["rectified", "released"] = "rectified",
    ):
        self.root, self.categories = Path(data_root), tuple(categories)
        if calibration not in ("rectified", "released"):
            raise UserError(f'calibration is "rectified" or "released", not {calibration!r}')
        self.calibration = calibration
        for folder in ("calib", "label_02", "velodyne"):
            if not (self.root / folder).is_dir():
                raise UserError(f"{self.root} has no folder {folder}: KITTI tracking is expected there, its `training`")
        if isinstance(split, str) and split not in SPLITS:
            raise UserError(f"KITTI has no split {split!r}: there are {', '.join(SPLITS)}")
        self.scenes = [f"{number:04d}" for number in (SPLITS[split] if isinstance(split, str) else split)]
        self.tracklets = [tracklet for scene in self.scenes for tracklet in self._read(scene)]
        if not self.tracklets:
            raise UserError(f"no {', '.join(self.categories)} is labelled in the scenes {', '.join(self.scenes)}")
        self._say()

    def cloud(self, scene: str, frame: int) -> Tensor:
        """See :class:`TrackletSet`; empty where KITTI has no file (scene 0001, frames 177-180)."""
        path = self._cloud_file(scene, frame)
        return read_velodyne(path) if path.is_file() else torch.zeros(0, 3)

    def state(self) -> str:
        """See :class:`TrackletSet`."""
        words = [self.calibration, *self.categories]
        for scene in self.scenes:
            words += [(self.root / folder / f"{scene}.txt").read_text() for folder in ("calib", "label_02")]
            files = sorted((self.root / "velodyne" / scene).glob("*.bin"))
            words += [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
        return "\n".join(words)

    def _cloud_file(self, scene: str, frame: int) -> Path:
        return self.root / "velodyne" / scene / f"{frame:06d}.bin"

    def _read(self, scene: str) -> list[Tracklet]:
        rectified = read_calibration(self.root / "calib" / f"{scene}.txt", self.calibration == "rectified")
        velodyne_from_rect = se3.invert(rectified)
        rows: dict[tuple[str, int], list[tuple[int, Tensor]]] = defaultdict(list)
        for label in read_labels(self.root / "label_02" / f"{scene}.txt"):
            if label.category in self.categories:
                box = boxes3d.from_kitti(label.numbers[None], velodyne_from_rect)[0]
                rows[label.category, label.track].append((label.frame, box))
        tracklets = []
        for (category, track), labelled in rows.items():
            name = f"{scene}/{track:04d}/{category}"
            frames, boxes = in_order(labelled)
            if len(set(frames)) < len(frames):
                raise UserError(f"{self.root / 'label_02' / scene}.txt: {name} has two boxes in one frame")
            tracklets.append(Tracklet(name, category, scene, frames, boxes))
        return tracklets

    def _say(self) -> None:
        frames = sum(len(tracklet) for tracklet in self.tracklets)
        absent = {
            (tracklet.scene, frame)
            for tracklet in self.tracklets
            for frame in tracklet.frames
            if not self._cloud_file(tracklet.scene, frame).is_file()
        }
        words = f"{len(self.tracklets)} tracklets, {frames} frames; boxes by the {self.calibration} calibration"
        if absent:
            words += f"; {len(absent)} frames have no cloud (first: {'/'.join(map(str, min(absent)))})"
        print_log(f"{self.root}: {words}", logger="current")


class Label:
    """A line of a label file.

    Attributes:
        frame, track: numbers.
        category: of the object.
        numbers: (7,) float64 as h, w, l, x, y, z, rotation_y.
    """

    def __init__(self, line: str):
        words = line.split()
        if len(words) < _COLUMNS:
            raise ValueError(f"{len(words)} columns instead of {_COLUMNS}")
        self.frame, self.track, self.category = int(words[0]), int(words[1]), words[2]
        self.numbers = torch.tensor([float(word) for word in words[10:17]], dtype=torch.float64)


def read_labels(path: Path) -> list[Label]:
    """The objects of a label file, without placeholders (``DontCare``, sizes of -1).

    Raises:
        UserError: there is no such file, or a line cannot be read.
    """
    if not path.is_file():
        raise UserError(f"there are no labels {path}")
    labels = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            label = Label(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}") from error
        if label.category != _PLACEHOLDER and (label.numbers[:3] > 0).all():
            labels.append(label)
    return labels


def read_calibration(path: Path, rectify: bool = True) -> Tensor:
    """Pose (4, 4) float64 that leads from the Velodyne's frame to the camera's.

    Args:
        path: a calibration of KITTI's tracking, object or odometry benchmark.
        rectify: to the rectified camera, in whose frame labels are.

    Raises:
        UserError: there is no such file, or an entry is missing or has too few numbers.
    """
    if not path.is_file():
        raise UserError(f"there is no calibration {path}")
    entries = {}
    for line in path.read_text().splitlines():
        key, *words = line.replace(":", " ", 1).split() or [""]
        entries[key] = words
    pose = _matrix(path, entries, ("Tr_velo_cam", "Tr_velo_to_cam", "Tr"), (3, 4))
    if rectify:
        pose = _matrix(path, entries, ("R_rect", "R0_rect"), (3, 3)) @ pose
    return pose


def _matrix(path: Path, entries: dict[str, list[str]], names: Sequence[str], shape: tuple[int, int]) -> Tensor:
    """An entry as a (4, 4) matrix."""
    words = next((entries[name] for name in names if name in entries), None)
    if words is None:
        raise UserError(f"{path} has no entry {names[0]}")
    try:
        numbers = torch.tensor([float(word) for word in words], dtype=torch.float64).view(shape)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{path}: {names[0]} is not a matrix of {shape[0]} x {shape[1]} numbers") from error
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[: shape[0], : shape[1]] = numbers
    return matrix


def read_velodyne(path: Path) -> Tensor:
    """Points (N, 3) float32 of a cloud of four floats a point, without those that are no numbers.

    Raises:
        UserError: the file's size is no multiple of a point's.
    """
    size = path.stat().st_size
    if size % 16:
        raise UserError(f"{path} has {size} bytes, which is no multiple of the 16 of a point (x, y, z, intensity)")
    points = torch.from_numpy(np.fromfile(path, np.float32).reshape(-1, 4)[:, :3])
    return points[points.isfinite().all(1)]
