"""Files that list frames and their poses: `transforms.json`, `transforms_train.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perception.studio.errors import SceneError
from perception.studio.findings import counted

ORTHONORMAL_TOLERANCE = 1e-2
PATHS = ("file_path", "mask_path", "depth_file_path")  # what a frame may name
OTHER_SPLIT = {"val": "test", "test": "val"}
"""Evaluation views that stand in for missing ones."""


def check_folder(folder: Path) -> None:
    """Raise unless the scene's folder exists.

    Raises:
        SceneError: it is missing.
    """
    if not folder.exists():
        raise SceneError(f"there is no scene at {folder}: pass its folder with --data")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        SceneError: the file is not one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SceneError(f"{path} is not readable JSON: {error}") from None
    if not isinstance(content, dict):
        raise SceneError(f"{path} must hold a JSON object")
    return content


def read_transforms(path: Path) -> tuple[dict[str, Any], Tensor]:
    """The content of a transforms file, and the poses (N, 4, 4) of its frames in double precision.

    Raises:
        SceneError: it lists no frames, a frame names no image or has an impossible pose, or only some name masks.
    """
    meta = read_json(path)
    frames = meta.get("frames")
    poses = frame_poses(path, frames)
    masked = sum(bool(frame.get("mask_path")) for frame in frames)
    if masked not in (0, len(frames)):
        raise SceneError(f"{path} names masks for {masked} of {len(frames)} frames: name one for each, or none")
    return meta, poses


def frame_poses(path: Path, frames: Any) -> Tensor:
    """The poses (N, 4, 4) of the frames of a file, in double precision.

    Raises:
        SceneError: there are none, or one names no image or has an impossible pose.
    """
    if not isinstance(frames, list) or not frames:
        raise SceneError(f"{path} lists no frames")
    poses, faults = [], []
    for number, frame in enumerate(frames):
        try:
            poses.append(_pose_of(frame, f"{path}: frame {number}"))
        except SceneError as error:
            faults.append(str(error))
    if faults:
        raise SceneError(counted(faults))
    return torch.stack(poses)


def _pose_of(frame: Any, where: str) -> Tensor:
    if not isinstance(frame, dict) or not {"file_path", "transform_matrix"} <= frame.keys():
        raise SceneError(f"{where} needs file_path and transform_matrix")
    for key in PATHS:
        name = frame.get(key)
        if (key == "file_path" or name is not None) and (not isinstance(name, str) or not name):
            raise SceneError(f"{where} has the {key} {name!r}, which is not a name")
    try:
        pose = torch.tensor(frame["transform_matrix"], dtype=torch.float64)
    except (TypeError, ValueError):
        pose = torch.zeros(0)
    if pose.shape not in ((4, 4), (3, 4)):
        raise SceneError(f"{where} has a transform_matrix that is not a 4 x 4 matrix of numbers")
    check_pose(pose, where)
    if len(pose) == 3:
        pose = torch.cat([pose, torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=pose.dtype)])
    return pose


def check_pose(pose: Tensor, where: str) -> None:
    """Raise unless a camera-to-world pose (3 or 4, 4) is finite and rigid.

    Raises:
        SceneError: it is not; ``where`` begins the sentence.
    """
    if not bool(pose.isfinite().all()):
        raise SceneError(f"{where} has a pose with numbers that are not finite")
    if len(pose) == 4 and not torch.allclose(pose[3].double(), torch.tensor([0.0, 0, 0, 1]).double(), atol=1e-4):
        raise SceneError(f"{where} has a pose whose last row is {pose[3].tolist()}, not 0 0 0 1: is it transposed?")
    rotation = pose[:3, :3].double()
    deviation = float((rotation @ rotation.T - torch.eye(3, dtype=torch.float64)).abs().max())
    if deviation > ORTHONORMAL_TOLERANCE or float(torch.det(rotation)) < 0:
        raise SceneError(f"{where} has a pose whose upper left 3 x 3 part is not a rotation")


def check_names(path: Path, split: str, names: Any, known: Sequence[str]) -> None:
    """Raise unless a split's list names frames only.

    Raises:
        SceneError: it does not.
    """
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SceneError(f"{path}: {split}_filenames must be a list of names")
    known_paths = {Path(name) for name in known}
    if missing := [name for name in names if Path(name) not in known_paths]:
        raise SceneError(counted([f"{path}: {split}_filenames names {name}, which no frame has" for name in missing]))


def is_number(value: Any) -> bool:
    """Whether a value of a JSON file is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
