"""Frames of a plain folder: `rig.json`, `frames/NAME/CAMERA.jpg` and, where there are poses, `poses.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from perception.datasets.images import IMAGE_SUFFIXES
from perception.engine.errors import UserError
from perception.inference.names import natural_order
from perception.inference.scan import Scan

from .frames import RigCamera, RigDetails, add_scene, as_pose
from .options import Choice

RIG, POSES, FRAMES = "rig.json", "poses.json", "frames"
_FURTHEST = 10.0  # metres from the vehicle's origin at which it may have a camera
_SCENE = "frames"  # of frames without poses

Matrix = list[list[float]]

EGO_FROM_LIDAR = ((0.0, 1.0, 0.0, 0.943713), (-1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 1.0, 1.84023), (0.0, 0.0, 0.0, 1.0))
"""Where nuScenes' vehicles have their LiDAR, whose frame is that of detection: x to the right, y forward."""


class Camera(msgspec.Struct, forbid_unknown_fields=True):
    """A camera in `rig.json`: size and intrinsics (3 x 3) in pixels, and the pose from its frame (x right, y down, z
    forward) to the vehicle's (x forward, y left, z up, on the ground below the rear axle), 4 x 4, metres.
    """

    width: int
    height: int
    intrinsics: Matrix
    ego_from_camera: Matrix


class Rig(msgspec.Struct, forbid_unknown_fields=True):
    """`rig.json`; `ego_from_lidar` (4 x 4) is where the model's frame of detection is, by default nuScenes' LiDAR."""

    cameras: dict[str, Camera]
    ego_from_lidar: Matrix | None = None


class FramePose(msgspec.Struct, forbid_unknown_fields=True):
    """When and where the vehicle was: the time in microseconds, and the pose (4 x 4) from its frame to a fixed one."""

    global_from_ego: Matrix
    timestamp: int | None = None
    scene: str = _SCENE


class Poses(msgspec.Struct, forbid_unknown_fields=True):
    """`poses.json`: by name of the frame."""

    frames: dict[str, FramePose]


def scan_rig_folder(folder: Path, choice: Choice, patterns: Sequence[str], exclude: Path | None) -> Scan:
    """The frames of a folder, scene by scene in the order of time, or of names where there are no times.

    Args:
        folder: with `rig.json`.
        choice: what to run.
        patterns: shell patterns, one of which a frame's name matches; none means all frames.
        exclude: a folder that is none of the frames.

    Raises:
        UserError: `rig.json` or `poses.json` cannot be used.
    """
    if choice.version or choice.split:
        raise UserError(f"{folder} holds {RIG}: --version and --split are for nuScenes' data sets")
    rig_file, pose_file = folder / RIG, folder / POSES
    rig = _read(rig_file, Rig)
    names = _slots(rig_file, rig.cameras, choice)
    beside = [rig_file]
    ego_from_lidar = np.array(rig.ego_from_lidar or EGO_FROM_LIDAR)
    _check_pose(ego_from_lidar, f"{rig_file}: ego_from_lidar")
    for name in names:
        _check_camera(rig.cameras[name], f"{rig_file}: {name}")
    poses: dict[str, FramePose] | None = None
    if pose_file.is_file():
        poses = _read(pose_file, Poses).frames
        beside.append(pose_file)
        for name, pose in poses.items():
            _check_pose(np.array(pose.global_from_ego), f"{pose_file}: global_from_ego of {name}")
    found, entries = Scan(), []
    lidar_from_ego = np.linalg.inv(ego_from_lidar)
    for path in _frame_folders(folder, exclude):
        name = path.name
        pose = None if poses is None else poses.get(name)
        images, several = _images(path, names)
        if several or (poses is not None and pose is None):
            found.skipped[name] = f"there are several images of {several}" if several else f"{POSES} has no pose for it"
            continue
        details = RigDetails(
            name,
            _SCENE if pose is None else pose.scene,
            None if pose is None else pose.timestamp,
            0,
            tuple(_camera(slot, rig.cameras[slot], images[slot], lidar_from_ego) for slot in names),
            as_pose(ego_from_lidar),
            None if pose is None else as_pose(pose.global_from_ego),
        )
        entries.append((name, details, [image for image in images.values() if not image.is_file()]))
    _add_scenes(found, entries, choice, patterns, beside, pose_file)
    return found


def _add_scenes(
    found: Scan,
    entries: Sequence[tuple[str, RigDetails, list[Path]]],
    choice: Choice,
    patterns: Sequence[str],
    beside: Sequence[Path],
    pose_file: Path,
) -> None:
    there = sorted({details.scene for _, details, _ in entries}, key=natural_order)
    unknown = [name for name in choice.scenes if name not in there]
    if unknown:
        raise UserError(f"there is no scene {unknown[0]} in {pose_file}; it has {', '.join(there)}")
    for scene in there:
        own = [entry for entry in entries if entry[1].scene == scene]
        untimed = [name for name, details, _ in own if details.timestamp is None]
        if 0 < len(untimed) < len(own):
            raise UserError(f"{pose_file}: {untimed[0]} has no timestamp, other frames of {scene} have one")
        own.sort(key=lambda entry: (entry[1].timestamp or 0, natural_order(entry[0])))
        if choice.scenes and scene not in choice.scenes:
            continue
        placed = []
        for place, (name, details, missing) in enumerate(own):
            if patterns and not any(fnmatchcase(name, pattern) for pattern in patterns):
                found.ignored.append(name)
            else:
                placed.append((name, replace(details, place=place), missing))
        add_scene(found, placed, beside, pose_file)


def _frame_folders(folder: Path, exclude: Path | None) -> list[Path]:
    frames = folder / FRAMES
    if not frames.is_dir():
        raise UserError(f"{folder} has {RIG}, but no folder {FRAMES} with one folder of images for each frame")
    excluded = None if exclude is None else exclude.resolve()
    return [
        path
        for path in sorted(frames.iterdir(), key=lambda path: natural_order(path.name))
        if path.is_dir() and not path.name.startswith(".") and path.resolve() != excluded
    ]


def _images(folder: Path, names: Sequence[str]) -> tuple[dict[str, Path], str]:
    """The image of each camera, and which of them there are several of. One that is missing gets the usual name."""
    by_name: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
            by_name.setdefault(path.stem, []).append(path)
    several = [name for name in names if len(by_name.get(name, ())) > 1]
    return {name: by_name.get(name, [folder / f"{name}.jpg"])[0] for name in names}, ", ".join(several)


def _camera(name: str, camera: Camera, path: Path, lidar_from_ego: np.ndarray) -> RigCamera:
    pose = lidar_from_ego @ np.array(camera.ego_from_camera)
    intrinsics = as_pose(np.array(camera.intrinsics)[:3, :3])
    return RigCamera(name, path, camera.width, camera.height, intrinsics, as_pose(pose))


def _slots(path: Path, cameras: Mapping[str, Camera], choice: Choice) -> tuple[str, ...]:
    """Names of the cameras in the order of the model's slots: by name, whatever their order in the file."""
    absent = [name for name in choice.cameras if name not in cameras]
    surplus = [name for name in cameras if name not in choice.cameras]
    if absent or (surplus and not choice.given):
        fault = f"no {absent[0]}" if absent else f"{surplus[0]}, for which the model has no place"
        raise UserError(
            f"{path} has {fault}; the model's places are {', '.join(choice.cameras)}, the file has "
            f"{', '.join(cameras)}: --cameras names the camera of each place in this order"
        )
    return choice.cameras


def _check_camera(camera: Camera, where: str) -> None:
    matrix = np.array(camera.intrinsics, dtype=object)
    if matrix.shape not in ((3, 3), (3, 4), (4, 4)):
        raise UserError(f"{where}: intrinsics are a matrix of 3 x 3 numbers, pixels")
    matrix = matrix.astype(np.float64)
    if matrix.shape[1] == 4 and np.any(matrix[:3, 3]):
        raise UserError(f"{where}: the fourth column of intrinsics is not 0; an offset belongs into ego_from_camera")
    if matrix[0, 0] <= 0 or matrix[1, 1] <= 0 or np.abs(matrix[2, :3] - [0, 0, 1]).max() > 1e-6:
        raise UserError(f"{where}: intrinsics are [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] with fx, fy > 0")
    if not (0 < matrix[0, 2] < camera.width and 0 < matrix[1, 2] < camera.height):
        raise UserError(
            f"{where}: the principal point ({matrix[0, 2]:g}, {matrix[1, 2]:g}) lies outside of an image of "
            f"{camera.width} x {camera.height}: are the intrinsics those of another size?"
        )
    where = f"{where}: ego_from_camera"
    pose = np.array(camera.ego_from_camera, dtype=object)
    _check_pose(pose, where)
    pose = pose.astype(np.float64)
    distance = np.linalg.norm(pose[:3, 3])
    if distance > _FURTHEST:
        raise UserError(f"{where}: the camera is {distance:.1f} m away from the vehicle; metres are expected")
    # Columns of the rotation are the camera's axes: ahead is about level, and y points down.
    if abs(pose[2, 2]) > 0.9 or pose[2, 1] > -0.4:
        raise UserError(
            f"{where}: the camera does not stand upright (x right, y down, z forward are its axes, the vehicle's are x "
            "forward, y left, z up): is this the opposite pose, or are its axes other ones?"
        )


def _check_pose(matrix: np.ndarray, where: str) -> None:
    if matrix.shape != (4, 4):
        raise UserError(f"{where} must be a matrix of 4 x 4 numbers")
    matrix = matrix.astype(np.float64)
    if np.abs(matrix[3] - [0, 0, 0, 1]).max() > 1e-6:
        raise UserError(f"{where}: the last row is not 0 0 0 1; the matrix looks transposed")
    rotation = matrix[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-2 or np.linalg.det(rotation) < 0:
        raise UserError(f"{where}: its upper left 3 x 3 numbers are no rotation")


_File = TypeVar("_File", Rig, Poses)


def _read(path: Path, kind: type[_File]) -> _File:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise UserError(f"{path}: {error}") from error
