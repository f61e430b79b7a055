"""Which clouds of a folder follow each other, and where the sensor was: KITTI's layouts, and plain folders."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np

from perception.datasets.tracklets.kitti_files import read_calibration
from perception.engine.errors import UserError
from perception.inference.names import natural_order
from perception.inference.scan import Scan, Source

Pose = tuple[float, ...]
"""Sixteen numbers, row by row, of a 4 x 4 matrix: small and picklable."""

_IDENTITY = np.eye(4)


@dataclass(frozen=True)
class CloudDetails:
    """What the reader knows of a cloud beside its file.

    Attributes:
        frame: its number, from the digits at the end of its name; its place where names have none.
        missed: clouds that are missing before it, by the numbers of its neighbours.
        world_from_sensor: where the sensor was; None without poses.
        rect_from_sensor: to the rectified camera, for KITTI's labels; None without a calibration.
    """

    frame: int
    missed: int = 0
    world_from_sensor: Pose | None = None
    rect_from_sensor: Pose | None = None


def arrange(found: Scan, folder: Path) -> None:
    """Sorts the clouds of a scan into sequences, in the natural order of their names, with what is known of each.

    Args:
        found: of a folder; changes.
        folder: that was scanned.

    Raises:
        UserError: poses or a calibration cannot be read or do not fit the clouds.
    """
    root = folder if folder.is_dir() else folder.parent
    by_folder = groupby(sorted(found.sources, key=_place), key=lambda source: source.path.parent)
    found.sources = [source for parent, group in by_folder for source in _sequence(list(group), parent, root, found)]


def _place(source: Source) -> tuple:
    head, _, name = source.name.rpartition("/")
    return natural_order(head), head, natural_order(name), name


def _sequence(sources: Sequence[Source], parent: Path, root: Path, found: Scan) -> list[Source]:
    name = sequence_name(parent, root)
    numbers = _numbers(sources)
    frames = numbers or list(range(len(sources)))
    step = Counter(np.diff(frames).tolist()).most_common(1)[0][0] if numbers and len(frames) > 2 else 1
    layout = _layout(parent)
    poses = layout.poses()
    if poses is not None and numbers is None:
        raise UserError(f"{layout.pose_file} has poses, but the clouds in {parent} have no numbers to join them by")
    arranged, before = [], None
    for source, frame in zip(sources, frames, strict=True):
        if poses is not None and frame not in poses:
            found.skipped[source.name] = f"{layout.pose_file.name} has no pose for frame {frame}"
            continue
        missed = 0 if before is None else max(0, (frame - before) // max(step, 1) - 1)
        details = CloudDetails(frame, missed, None if poses is None else poses[frame], layout.rect_from_sensor())
        arranged.append(replace(source, sequence=name, details=details))
        before = frame
    return arranged


def sequence_name(parent: Path, root: Path) -> str:
    """Of the clouds in a folder: its path below the root, without ``velodyne``, as KITTI's tools name sequences."""
    parts = [part for part in parent.relative_to(root).parts if part != "velodyne"]
    return "/".join(parts) or (parent.parent.name if parent.name == "velodyne" else parent.name) or "sequence"


def _numbers(sources: Sequence[Source]) -> list[int] | None:
    """The last digits in the names, if all have some and no two the same."""
    digits = [re.findall(r"\d+", source.path.name.split(".")[0]) for source in sources]
    if not all(digits):
        return None
    numbers = [int(some[-1]) for some in digits]
    return numbers if len(set(numbers)) == len(numbers) else None


@dataclass(frozen=True)
class _Layout:
    """Files beside a folder of clouds."""

    calibration: Path | None = None
    pose_file: Path | None = None

    def rect_from_sensor(self) -> Pose | None:
        return None if self.calibration is None else _flat(_camera_from_sensor(self.calibration))

    def poses(self) -> dict[int, Pose] | None:
        """Of the sensor in the world, by frame: a row for each, from 0 on."""
        if self.pose_file is None:
            return None
        rows = []
        for number, line in enumerate(self.pose_file.read_text().splitlines(), 1):
            if not line.strip():
                continue
            try:
                matrix = np.array([float(word) for word in line.split()]).reshape(3, 4)
            except ValueError as error:
                raise UserError(f"{self.pose_file}, line {number}: 12 numbers of a 3 x 4 pose are expected") from error
            if abs(np.linalg.det(matrix[:, :3]) - 1) > 1e-2:
                raise UserError(f"{self.pose_file}, line {number}: the first three columns are no rotation")
            rows.append(np.concatenate([matrix, _IDENTITY[3:]]))
        if self.calibration is None:
            return {frame: _flat(pose) for frame, pose in enumerate(rows)}
        camera_from_sensor = _camera_from_sensor(self.calibration)
        # The world of the first camera has y down; that of the first scan has z up, as trackers need it.
        upright = np.linalg.inv(camera_from_sensor)
        return {frame: _flat(upright @ pose @ camera_from_sensor) for frame, pose in enumerate(rows)}


def _layout(parent: Path) -> _Layout:
    """KITTI odometry (``sequences/00/velodyne``), tracking (``velodyne/0000`` beside ``calib``), or a plain folder."""
    if parent.name == "velodyne" and (parent.parent / "calib.txt").is_file():
        sequence = parent.parent
        beside = sequence.parent.parent / "poses" / f"{sequence.name}.txt"
        poses = next((path for path in (sequence / "poses.txt", beside) if path.is_file()), None)
        return _Layout(sequence / "calib.txt", poses)
    if parent.parent.name == "velodyne":
        calibration = parent.parent.parent / "calib" / f"{parent.name}.txt"
        return _Layout(calibration if calibration.is_file() else None)
    poses = parent / "poses.txt"
    return _Layout(None, poses if poses.is_file() else None)


def _camera_from_sensor(path: Path) -> np.ndarray:
    # Odometry's calibration has no rectifying rotation: it leads to the rectified camera as it is.
    rectify = re.search(r"^(R_rect|R0_rect)\b", path.read_text(), re.MULTILINE) is not None
    return read_calibration(path, rectify).numpy()


def _flat(matrix: np.ndarray) -> Pose:
    return tuple(np.asarray(matrix, np.float64).ravel().tolist())
