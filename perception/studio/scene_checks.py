"""What can be wrong with a scene, found before training starts and said in one sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from perception.studio.errors import SceneError

if TYPE_CHECKING:
    from nerfstudio.cameras.cameras import Cameras

ORTHONORMAL_TOLERANCE = 1e-2
MIN_SHARE_FACING = 0.9  # of the cameras that must look towards the common point of an inward-facing scene
LAYOUTS = {
    "blender-data": ("transforms_train.json",),
    "nerfstudio-data": ("transforms.json",),
    "nsvf-data": ("intrinsics.txt", "pose", "rgb"),
    "colmap": ("colmap",),
}
"""Data parser to name on the command line, and the files by which its layout is recognised."""


def known_layout(folder: Path) -> str | None:
    """The data parser whose files lie in ``folder``."""
    for parser, names in LAYOUTS.items():
        if all((folder / name).exists() for name in names):
            return parser
    return None


def check_folder(folder: Path) -> None:
    """Raise unless the scene's folder exists.

    Raises:
        SceneError: it is missing.
    """
    if not folder.exists():
        raise SceneError(f"there is no scene at {folder}: pass its folder with --data")


def check_blender_scene(folder: Path, splits: Sequence[str]) -> None:
    """Raise unless ``folder`` is a whole scene in Blender layout.

    Raises:
        SceneError: a transforms file is missing or malformed, a camera is impossible, or an image is missing.
    """
    for split in splits:
        path = folder / f"transforms_{split}.json"
        if not path.is_file():
            layout = known_layout(folder)
            if layout not in (None, "blender-data"):
                raise SceneError(f"{folder} has no {path.name}: add `{layout}` at the end of the command to read it")
            raise SceneError(f"{folder} has no {path.name}, which a scene in Blender layout needs")
        meta = read_json(path)
        angle = meta.get("camera_angle_x")
        if not isinstance(angle, (int, float)) or not math.isfinite(angle) or not 0 < angle < math.pi:
            raise SceneError(f"{path}: camera_angle_x must lie between 0 and pi radians, not {angle!r} (focal length)")
        frames = meta.get("frames")
        if not isinstance(frames, list) or not frames:
            raise SceneError(f"{path} lists no frames")
        for number, frame in enumerate(frames):
            _check_blender_frame(folder, path, number, frame)


def _check_blender_frame(folder: Path, path: Path, number: int, frame: dict) -> None:
    if not isinstance(frame, dict) or not {"file_path", "transform_matrix"} <= frame.keys():
        raise SceneError(f"{path}: frame {number} needs file_path and transform_matrix")
    image = folder / f"{frame['file_path'].replace('./', '')}.png"
    if not image.is_file():
        raise SceneError(f"{path} names {frame['file_path']}, but there is no image {image}")
    try:
        pose = torch.tensor(frame["transform_matrix"], dtype=torch.float64)
    except (TypeError, ValueError):
        pose = torch.zeros(0)
    if pose.shape not in ((4, 4), (3, 4)):
        raise SceneError(f"{path}: transform_matrix of frame {number} is not a 4 x 4 matrix of numbers")
    check_pose(pose, f"{path}: frame {number}")


def read_json(path: Path) -> dict:
    """Read a JSON object.

    Raises:
        SceneError: the file is not one.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SceneError(f"{path} is not readable JSON: {error}") from None
    if not isinstance(content, dict):
        raise SceneError(f"{path} must hold a JSON object")
    return content


def check_pose(pose: Tensor, where: str) -> None:
    """Raise unless a camera-to-world pose (3 or 4, 4) is finite and rigid.

    Raises:
        SceneError: it is not; ``where`` begins the sentence.
    """
    if not bool(pose.isfinite().all()):
        raise SceneError(f"{where} has a pose with numbers that are not finite")
    rotation = pose[:3, :3].double()
    deviation = float((rotation @ rotation.T - torch.eye(3, dtype=torch.float64)).abs().max())
    if deviation > ORTHONORMAL_TOLERANCE or float(torch.det(rotation)) < 0:
        raise SceneError(f"{where} has a pose whose upper left 3 x 3 part is not a rotation")


def check_cameras(cameras: Cameras, names: Sequence[Path]) -> None:
    """Raise unless all cameras have finite rigid poses and positive focal lengths, one for each image.

    Raises:
        SceneError: one has not.
    """
    if len(cameras) != len(names):
        raise SceneError(f"the scene has {len(names)} images but {len(cameras)} camera poses")
    if not len(names):
        raise SceneError("the scene has no training images")
    for index, name in enumerate(names):
        check_pose(cameras.camera_to_worlds[index], str(name))
        focal = torch.cat([cameras.fx[index].reshape(-1), cameras.fy[index].reshape(-1)])
        if not bool((focal.isfinite() & (focal > 0)).all()):
            raise SceneError(f"{name} has a focal length of {focal.tolist()} pixels; it must be positive")


def check_inward_facing(cameras: Cameras) -> None:
    """Raise unless the cameras look at a common region, as around an object.

    Raises:
        SceneError: they look outwards, or all in one direction.
    """
    origins = cameras.camera_to_worlds[:, :3, 3].double().cpu()
    forward = -cameras.camera_to_worlds[:, :3, 2].double().cpu()
    forward = forward / forward.norm(dim=-1, keepdim=True)
    # The point nearest to all viewing axes in the least-squares sense.
    across = torch.eye(3, dtype=torch.float64) - forward[:, :, None] * forward[:, None, :]  # (N, 3, 3)
    system = across.sum(0)
    advice = "this method needs a bounded scene that the cameras surround (an object, or images masked to one)"
    if len(origins) > 1 and float(torch.linalg.eigvalsh(system)[0]) < 1e-3 * len(origins):
        raise SceneError(f"the cameras all look in one direction: {advice}")
    if len(origins) == 1:
        raise SceneError(f"the scene has one training camera: {advice}")
    centre = torch.linalg.solve(system, (across @ origins[..., None]).sum(0))[:, 0]
    facing = ((centre - origins) * forward).sum(-1) > 0
    if float(facing.double().mean()) < MIN_SHARE_FACING:
        raise SceneError(f"the cameras look away from each other, as in an unbounded scene: {advice}")
