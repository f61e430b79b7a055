"""Frames of a nuScenes data set, through the devkit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from perception.datasets.driving.infos import Frame
from perception.engine.errors import UserError
from perception.inference.names import natural_order
from perception.inference.scan import Scan

from .frames import RigCamera, RigDetails, add_scene, as_pose
from .options import Choice

_POSE_TABLES = ("calibrated_sensor", "ego_pose", "sample", "sample_data", "scene")


def versions_of(root: Path) -> list[str]:
    """Folders of tables that there are."""
    return sorted(path.name for path in root.glob("v1.0-*") if path.is_dir())


def scan_nuscenes(root: Path, choice: Choice, patterns: Sequence[str]) -> Scan:
    """The key frames of the chosen scenes; a frame is called SCENE/NUMBER.

    Args:
        root: with folders of tables.
        choice: what to run.
        patterns: shell patterns, one of which a frame's name matches; none means all frames.

    Raises:
        UserError: the version, the split or a scene is not there, or tables cannot be read.
    """
    # The devkit takes seconds to import, and worker processes do not need it.
    from nuscenes.utils.splits import create_splits_scenes

    from perception.datasets.driving.nuscenes_tables import frames_without_annotations, open_tables

    version = _version(root, choice.version)
    nusc = open_tables(root, version)
    there = {scene["name"] for scene in nusc.scene}
    wanted = there
    if choice.split is not None:
        splits = create_splits_scenes()
        if choice.split not in splits:
            raise UserError(f"nuScenes has no split {choice.split}; it has {', '.join(splits)}")
        wanted = there & set(splits[choice.split])
        if not wanted:
            raise UserError(f"none of the scenes of {root / version} is in the split {choice.split}")
    if choice.scenes:
        unknown = [name for name in choice.scenes if name not in there]
        if unknown:
            raise UserError(f"{root / version} has no scene {unknown[0]}; it has {_some(sorted(there))}")
        wanted = set(choice.scenes)
    beside = [root / version / f"{name}.json" for name in _POSE_TABLES]
    found = Scan()
    frames = frames_without_annotations(nusc, wanted)
    for scene in sorted(wanted, key=natural_order):
        own = sorted((frame for frame in frames if frame.scene == scene), key=lambda frame: frame.timestamp)
        entries = []
        for place, frame in enumerate(own):
            name = f"{scene}/{place:03d}"
            if patterns and not any(fnmatchcase(name, pattern) for pattern in patterns):
                found.ignored.append(name)
                continue
            details = _details(frame, place, root, choice.cameras)
            missing = [camera.path for camera in details.cameras if not os.path.isfile(camera.path)]
            entries.append((name, details, missing))
        add_scene(found, entries, beside, root / version / "ego_pose.json")
    return found


def _details(frame: Frame, place: int, root: Path, slots: Sequence[str]) -> RigDetails:
    absent = [slot for slot in slots if slot not in frame.cameras]
    if absent:
        raise UserError(f"sample {frame.token} of {root} has no {absent[0]}; it has {', '.join(frame.cameras)}")
    cameras = []
    for slot in slots:
        camera = frame.cameras[slot]
        matrices = as_pose(camera.intrinsics), as_pose(camera.lidar_from_camera)
        cameras.append(RigCamera(slot, root / camera.path, camera.width, camera.height, *matrices))
    poses = as_pose(frame.ego_from_lidar), as_pose(frame.global_from_ego)
    return RigDetails(frame.token, frame.scene, frame.timestamp, place, tuple(cameras), *poses)


def _version(root: Path, version: str | None) -> str:
    there = versions_of(root)
    if version is not None:
        return version  # whether it is there is for `open_tables` to say
    if len(there) > 1:
        raise UserError(f"{root} has tables of {', '.join(there)}: choose one with --version")
    return there[0]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
