"""What is known of a frame of a rig beside its images. Small and picklable: it travels to the worker processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from perception.engine.errors import UserError
from perception.inference.scan import Scan, Source

FASTEST = 70.0  # m/s that a road vehicle may drive
KEY_FRAMES = 0.5
"""Seconds between nuScenes' key frames, which models that look back were trained on."""

Pose = tuple[tuple[float, ...], ...]
"""Rows of a 4 x 4 matrix."""


@dataclass(frozen=True)
class RigCamera:
    """A camera of a frame.

    Attributes:
        name: of the rig's.
        path: of its image.
        width, height: that the calibration is for.
        intrinsics: rows of the 3 x 3 matrix, in pixels.
        lidar_from_camera: OpenCV axes; through the vehicle's poses at the time of the image and of the frame.
    """

    name: str
    path: Path
    width: int
    height: int
    intrinsics: Pose
    lidar_from_camera: Pose


@dataclass(frozen=True)
class RigDetails:
    """A frame.

    Attributes:
        token: nuScenes' of the sample; the frame's name in a plain folder.
        scene: its name.
        timestamp: microseconds; None where it is not known.
        place: number of the frame in its scene, those counted that cannot be run.
        cameras: in the order of the model's slots.
        ego_from_lidar: of the frame of detection.
        global_from_ego: None without poses.
        note: what a model that looks back has to know, said once for each scene.
    """

    token: str
    scene: str
    timestamp: int | None
    place: int
    cameras: tuple[RigCamera, ...]
    ego_from_lidar: Pose
    global_from_ego: Pose | None
    note: str = ""


def as_pose(matrix: object) -> Pose:
    """A matrix as rows."""
    return tuple(map(tuple, np.asarray(matrix, np.float64).tolist()))


def add_scene(
    found: Scan, frames: Sequence[tuple[str, RigDetails, Sequence[Path]]], beside: Sequence[Path], where: object
) -> None:
    """Adds the frames of a scene to a scan; those whose images are not all there are skipped.

    Args:
        found: changes.
        frames: name, details and missing images of each frame, in the order of time.
        beside: files that all frames depend on.
        where: what states the poses, for messages.

    Raises:
        UserError: the vehicle would be too fast.
    """
    note = _note([details for _, details, _ in frames], where)
    sources = []
    for name, details, missing in frames:
        if missing:
            absent = [camera.name for camera in details.cameras if camera.path in missing]
            found.skipped[name] = f"{', '.join(absent)} missing ({missing[0]})"
            continue
        files = (*(camera.path for camera in details.cameras), *beside)
        size = sum(path.stat().st_size for path in files)
        sources.append(Source(name, files, size, details.scene, replace(details, note="" if sources else note)))
    found.sources += sources


def _note(frames: Sequence[RigDetails], where: object) -> str:
    if any(frame.global_from_ego is None for frame in frames):
        return "there are no poses of the vehicle: earlier frames are not looked at"
    moved, times = [], []
    for before, after in pairwise(frames):
        way = np.subtract(after.global_from_ego, before.global_from_ego)
        moved.append(bool(np.any(way)))
        if before.timestamp is None or after.timestamp is None:
            continue
        seconds = (after.timestamp - before.timestamp) / 1e6
        times.append(seconds)
        speed = float(np.linalg.norm(way[:3, 3])) / seconds if seconds > 0 else float("inf")
        if speed > FASTEST:
            raise UserError(
                f"{where}: from {before.token} to {after.token} the vehicle would drive {speed:.0f} m/s; positions are "
                "metres, timestamps microseconds"
            )
    if moved and not any(moved):
        return "all poses of the vehicle are the same: earlier frames are laid over this one unmoved"
    if times and not 0.5 * KEY_FRAMES <= np.median(times) <= 2 * KEY_FRAMES:
        return f"frames are {np.median(times):.2f} s apart; models that look back were trained on {KEY_FRAMES} s"
    return ""
