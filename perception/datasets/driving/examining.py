"""A look at rigs before anything slow starts: files, calibrations, the vehicle's motion; and a sheet of samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from perception.datasets.checks.examined import Examined
from perception.datasets.checks.files import look_at_headers, look_for_files
from perception.datasets.checks.report import Section, some
from perception.datasets.images import read_image
from perception.datasets.palette import default_palette
from perception.engine.atomic import replacing

from .infos import CAMERAS, CLASSES, Camera, Frame, box_array, decode_frame, read_infos
from .sheets import View, draw_sheet

FASTEST = 70.0  # m/s that a road vehicle may drive
FURTHEST = (
    5.0  # metres from the LiDAR at which a vehicle may have a camera, more than it moves between the two included
)
_SHEET_FRAMES = 4
_MINI = {"train": "mini_train", "val": "mini_val", "test": "mini_val"}
"""The split of `v1.0-mini` for each loader."""


class ExaminedRigs(Examined):
    """A data set whose settings have ``data_root`` and an info file as ``ann_file``."""

    @staticmethod
    def remedy(root: Path) -> str | None:
        """The command that makes the info files of a folder, or the options that name those of a `v1.0-mini`, whose
        splits have names of their own; None where it holds no tables."""
        versions = sorted(path.name for path in root.glob("v1.0-*") if path.is_dir())
        if versions == ["v1.0-mini"] and all((root / f"infos_{split}.msgpack").is_file() for split in _MINI.values()):
            options = " ".join(
                f"{loader}_dataloader.dataset.ann_file=infos_{split}.msgpack" for loader, split in _MINI.items()
            )
            return f"the info files of v1.0-mini are there: name them with --cfg-options {options}"
        command = f"python tools/dataset_converters/nuscenes.py {root} --version"
        return f"make it with: {command} {versions[-1]}" if versions else None

    @classmethod
    def examine(cls, settings: Mapping[str, Any], section: Section, limit: int) -> None:
        """See :class:`~perception.datasets.checks.examined.Examined`."""
        root, frames = Path(settings.get("data_root") or ""), _frames(settings)
        names = tuple(settings.get("cameras") or CAMERAS)
        classes = tuple((settings.get("metainfo") or {}).get("classes") or CLASSES)
        scenes = dict.fromkeys(frame.scene for frame in frames)
        section.facts.append(f"{len(frames)} frames of {len(scenes)} scenes, cameras: {', '.join(names)}")
        objects = Counter(name for frame in frames for name in frame.objects.names)
        section.facts.append("objects: " + ", ".join(f"{name} {objects[name]}" for name in classes))
        lost = [name for name in classes if not objects[name]]
        if lost and objects:
            section.findings.warn(f"there are no objects of {some(lost)}", "are the classes named as nuScenes' are?")
        absent = [(frame.token, name) for frame in frames for name in names if name not in frame.cameras]
        if absent:
            section.findings.error(
                f"{len(absent)} views are missing, the first is {absent[0][1]} of frame {absent[0][0]}",
                f"the frame has {', '.join(next(f for f in frames if f.token == absent[0][0]).cameras)}",
            )
            return
        views = [frame.cameras[name] for frame in frames for name in names]
        there = look_for_files(str(root), [view.path for view in views], section.findings)
        found = [views[k] for k in there]
        sizes = [(view.width, view.height) for view in found]
        look_at_headers(str(root), [view.path for view in found], sizes, section.findings, limit)
        _look_at_calibrations(frames, names, section)
        _look_at_motion(frames, section)

    @classmethod
    def draw(cls, settings: Mapping[str, Any], path: Path) -> bool:
        """A sheet of a few frames: the cameras with boxes, and the boxes from above over the LiDAR's points."""
        root, frames = Path(settings.get("data_root") or ""), _frames(settings)
        names = tuple(settings.get("cameras") or CAMERAS)
        chosen = frames[:: max(1, -(-len(frames) // _SHEET_FRAMES))]
        rows = [_sheet_row(root, frame, names) for frame in chosen]
        width = max(row.shape[1] for row in rows)
        rows = [np.pad(row, ((0, 8), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            Image.fromarray(np.concatenate(rows)).save(file, "JPEG", quality=90)
        return True


def _frames(settings: Mapping[str, Any]) -> list[Frame]:
    infos = read_infos(Path(settings.get("data_root") or "") / settings["ann_file"])
    return [decode_frame(raw) for raw in infos.frames]


def _look_at_calibrations(frames: Sequence[Frame], names: Sequence[str], section: Section) -> None:
    for name in names:
        poses = np.array([frame.cameras[name].lidar_from_camera for frame in frames])
        determinants = np.linalg.det(poses[:, :3, :3])
        if np.abs(poses[:, 3] - [0, 0, 0, 1]).max() > 1e-6:
            section.findings.error(f"{name}: the last row of a pose is not 0 0 0 1", "is the matrix transposed?")
        elif np.abs(determinants - 1).max() > 1e-3:
            section.findings.error(f"{name}: a rotation has the determinant {determinants.min():.3f}, not 1")
        elif np.linalg.norm(poses[:, :3, 3], axis=1).max() > FURTHEST:
            section.findings.warn(
                f"{name} is {np.linalg.norm(poses[:, :3, 3], axis=1).max():.1f} m away from the LiDAR",
                "is the pose the opposite one, or are poses of the vehicle missing?",
            )


def _look_at_motion(frames: Sequence[Frame], section: Section) -> None:
    """The vehicle's poses, which past frames are moved by."""
    speeds, still = [], []
    for before, after in pairwise(frames):
        if before.scene_token == after.scene_token:
            way = np.array(after.global_from_ego)[:3, 3] - np.array(before.global_from_ego)[:3, 3]
            seconds = (after.timestamp - before.timestamp) / 1e6
            speeds.append(np.linalg.norm(way) / seconds if seconds > 0 else np.inf)
            still.append(np.array_equal(after.global_from_ego, before.global_from_ego))
    if not speeds:
        return
    section.facts.append(f"the vehicle drives {np.mean(speeds):.1f} m/s on average, {np.max(speeds):.1f} m/s at most")
    if max(speeds) > FASTEST:
        section.findings.error(
            f"the vehicle would drive {max(speeds):.0f} m/s between two frames", "are positions and timestamps right?"
        )
    if all(still):
        section.findings.warn(
            "all poses of the vehicle within a scene are the same",
            "models that look back would overlay the past unmoved",
        )


def _sheet_row(root: Path, frame: Frame, names: Sequence[str]) -> np.ndarray:
    """Two rows of cameras and, beside them, the view from above."""
    labels = {name: number for number, name in enumerate(CLASSES)}
    kept = [k for k, name in enumerate(frame.objects.names) if name in labels]
    boxes = torch.from_numpy(box_array(frame.objects)[kept].reshape(-1, 9))
    palette = default_palette(len(CLASSES))
    colours = [palette[labels[frame.objects.names[k]]] for k in kept]
    points = np.zeros((0, 3))
    scan = root / frame.lidar_path
    if scan.is_file() and scan.stat().st_size % 20 == 0:  # rows of x, y, z, intensity, ring
        points = np.fromfile(scan, "<f4").reshape(-1, 5)[:, :3]
    views = [_view(root, frame.cameras[name]) for name in names]
    return draw_sheet(views, boxes, colours, points)


def _view(root: Path, camera: Camera) -> View:
    pixels = read_image(root / camera.path)
    return View(pixels, np.array(camera.intrinsics), np.array(camera.lidar_from_camera))
