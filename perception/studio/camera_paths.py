"""Camera paths as nerfstudio's viewer exports them: of a file, everything that it states is used or refused."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from nerfstudio.cameras.camera_paths import get_path_from_json
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.scene_box import OrientedBox
from torch import Tensor

from perception.engine.atomic import replacing
from perception.studio.errors import SceneError
from perception.studio.transforms import check_pose, is_number, read_json

# Types of cameras; of the stereo ones the right eye, and the axis along which the eyes' pictures are joined, left or
# above the left one: as `ns-render camera-path` joins them.
SINGLE = ("perspective", "fisheye", "equirectangular")
STEREO = {
    "omnidirectional": (CameraType.OMNIDIRECTIONALSTEREO_R, 0),
    "vr180": (CameraType.VR180_R, 1),
}
MAX_SIDE = 1 << 15  # pixels


@dataclass(frozen=True)
class CameraPath:
    """The frames of a path.

    ``eyes`` holds the cameras (F) of one eye, or of the left and the right one; their pictures are joined along axis
    ``joined``. ``crop`` is the box outside of which nothing is shown but the colour ``background`` (3,).
    """

    eyes: tuple[Cameras, ...]
    joined: int = 1
    crop: OrientedBox | None = None
    background: Tensor | None = None

    def __len__(self) -> int:
        return len(self.eyes[0])

    def join(self, pictures: Sequence[Tensor]) -> Tensor:
        """The picture of a frame from those of its eyes (H, W, C)."""
        return torch.cat(list(pictures), self.joined)


def read_camera_path(path: Path) -> CameraPath:
    """Read a camera path.

    Raises:
        SceneError: it is not one, or states what cannot be rendered.
    """
    content = read_json(path)
    kind = content.get("camera_type", "perspective")
    kind = kind.lower() if isinstance(kind, str) else kind
    if kind not in (*SINGLE, *STEREO):
        raise SceneError(f"{path}: camera_type must be one of {', '.join((*SINGLE, *STEREO))}, not {kind!r}")
    frames = content.get("camera_path")
    if not isinstance(frames, list) or not frames:
        raise SceneError(f"{path} is a camera path without poses: add keyframes in the viewer before exporting it")
    sides = {name: _side(content, name, path) for name in ("render_height", "render_width")}
    checked = [_frame(frame, kind, f"{path}: pose {number}") for number, frame in enumerate(frames)]
    cameras = get_path_from_json({**content, **sides, "camera_type": kind, "camera_path": checked})
    crop, background = _crop(content.get("crop"), path)
    if kind not in STEREO:
        return CameraPath((cameras,), crop=crop, background=background)
    right_type, axis = STEREO[kind]
    right = replace(cameras, camera_type=torch.full_like(cameras.camera_type, right_type.value))
    return CameraPath((cameras, right), axis, crop, background)


def write_camera_path(path: Path, cameras: Cameras, seconds: float) -> None:
    """Write perspective cameras (F) of one size as a path for `ns-render camera-path` and :func:`read_camera_path`.

    The format knows square pixels and a principal point in the image's centre only.

    Raises:
        OutputError: the file cannot be written.
    """
    height, width = int(cameras.height[0]), int(cameras.width[0])
    frames = []
    for pose, focal in zip(cameras.camera_to_worlds.tolist(), cameras.fy.reshape(-1).tolist()):
        matrix = [number for row in (*pose, [0.0, 0.0, 0.0, 1.0]) for number in row]
        angle = math.degrees(2 * math.atan(0.5 * height / focal))
        frames.append({"camera_to_world": matrix, "fov": angle, "aspect": width / height})
    content = {
        "camera_type": "perspective",
        "render_height": height,
        "render_width": width,
        "fps": len(frames) / seconds,
        "seconds": seconds,
        "is_cycle": True,
        "camera_path": frames,
    }
    with replacing(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def _side(content: dict[str, Any], name: str, path: Path) -> int:
    side = content.get(name)
    if not is_number(side) or side != int(side) or not 0 < side <= MAX_SIDE:
        raise SceneError(f"{path}: {name} must be a whole number of pixels up to {MAX_SIDE}, not {side!r}")
    return int(side)


def _frame(frame: Any, kind: str, where: str) -> dict[str, Any]:
    """One frame with its pose as 16 finite numbers, rigid."""
    if not isinstance(frame, dict) or "camera_to_world" not in frame:
        raise SceneError(f"{where} has no camera_to_world")
    try:
        pose = torch.tensor(frame["camera_to_world"], dtype=torch.float64).reshape(-1)
    except (TypeError, ValueError):
        raise SceneError(f"{where}: camera_to_world must be 16 numbers") from None
    if len(pose) != 16:
        raise SceneError(f"{where}: camera_to_world has {len(pose)} numbers; a 4 x 4 matrix has 16")
    pose = pose.view(4, 4)
    scale = pose[:3, :3].norm(dim=0)
    if bool((scale > 0).all()) and float(scale.max() / scale.min()) < 1.001:
        pose[:3, :3] /= scale  # an object's size in the program that made the path does not turn its cameras
    check_pose(pose, where)
    checked = {**frame, "camera_to_world": pose.flatten().tolist()}
    if kind in ("perspective", "fisheye") and not (is_number(frame.get("fov")) and 0 < frame["fov"] < 180):
        raise SceneError(f"{where}: fov must lie between 0 and 180 degrees, not {frame.get('fov')!r}")
    if not is_number(frame.get("render_time", 0.0)):
        raise SceneError(f"{where}: render_time must be a number, not {frame['render_time']!r}")
    return checked


def _crop(crop: Any, path: Path) -> tuple[OrientedBox | None, Tensor | None]:
    if crop is None:
        return None, None
    if not isinstance(crop, dict):
        raise SceneError(f"{path}: crop must be an object with crop_center, crop_scale and crop_bg_color")
    centre = _numbers(crop, "crop_center", path)
    size = _numbers(crop, "crop_scale", path)
    angles = _numbers({"crop_rot": [0.0] * 3, **crop}, "crop_rot", path)
    colour = crop.get("crop_bg_color")
    shades = [colour.get(name) for name in "rgb"] if isinstance(colour, dict) else [None]
    if not all(is_number(shade) and 0 <= shade <= 255 for shade in shades):
        raise SceneError(f"{path}: crop_bg_color must hold r, g and b from 0 to 255, not {colour!r}")
    if min(size) <= 0:
        raise SceneError(f"{path}: crop_scale must be positive, not {size}")
    return OrientedBox.from_params(tuple(centre), tuple(angles), tuple(size)), torch.tensor(shades) / 255


def _numbers(crop: dict[str, Any], name: str, path: Path) -> list[float]:
    values = crop.get(name)
    if not isinstance(values, list) or len(values) != 3 or not all(map(is_number, values)):
        raise SceneError(f"{path}: {name} must be three numbers, not {values!r}")
    return [float(value) for value in values]
