"""Intrinsics as transforms files state them, for a whole scene or for single frames."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from nerfstudio.cameras.camera_utils import get_distortion_params
from nerfstudio.cameras.cameras import CAMERA_MODEL_TO_TYPE, Cameras, CameraType
from torch import Tensor

from perception.studio.errors import SceneError
from perception.studio.transforms import is_number

DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
KEYS = ("fl_x", "fl_y", "cx", "cy", "w", "h", "camera_angle_x", "camera_angle_y", "x_fov", "y_fov", *DISTORTION)
FOCAL_TOLERANCE = 0.01  # relative difference between two statements of one focal length


class Intrinsics(NamedTuple):
    """A camera for one image, in pixels of that image."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    distortion: tuple[float, ...]
    """k1, k2, k3, k4, p1, p2 in nerfstudio's meaning."""
    camera_type: CameraType


def stated_intrinsics(
    meta: Mapping[str, Any], frame: Mapping[str, Any], size: tuple[int, int], where: str
) -> Intrinsics:
    """What a transforms file says about the camera of one image.

    A frame's statement goes before one for the whole scene. Focal lengths come from `fl_x` and `fl_y` (pixels),
    `camera_angle_x` and `camera_angle_y` (radians), or `x_fov` and `y_fov` (degrees); the vertical one is the
    horizontal one where it is not stated, and `fl_y` goes before `camera_angle_y`. The principal point is the centre
    where it is not stated. All of them belong to an image of `w` x `h` pixels: an image of the same shape and another
    size gets scaled ones.

    Args:
        meta: the file's content.
        frame: its entry for the image.
        size: width and height of the image file in pixels.
        where: begins the error's sentence.

    Raises:
        SceneError: a statement is missing, impossible, or contradicts another one or the image's shape.
    """
    stated = {key: _number(value, key, where) for key, value in {**_of(meta), **_of(frame)}.items()}
    width, height = _stated_size(stated, size, where)
    kind = camera_type(meta, frame, where)
    focal_x = _focal(meta, frame, ("fl_x", "camera_angle_x", "x_fov"), width, kind, where)
    focal_y = _focal(meta, frame, ("fl_y", "camera_angle_y", "y_fov"), height, kind, where)
    if focal_x is None and focal_y is None:
        raise SceneError(f"{where} states no focal length (camera_angle_x, or fl_x)")
    fx, fy = focal_x or focal_y, focal_y or focal_x
    scale_x, scale_y = size[0] / width, size[1] / height
    return Intrinsics(
        fx=fx * scale_x,
        fy=fy * scale_y,
        cx=stated.get("cx", width / 2) * scale_x,
        cy=stated.get("cy", height / 2) * scale_y,
        width=size[0],
        height=size[1],
        distortion=_distortion(meta, frame, stated, where),
        camera_type=kind,
    )


def make_cameras(poses: Tensor, intrinsics: Iterable[Intrinsics]) -> Cameras:
    """Cameras with poses (N, 3, 4) and one set of intrinsics each."""
    columns = Intrinsics(*zip(*intrinsics))
    distortion = torch.tensor(columns.distortion, dtype=torch.float32)  # (N, 6)
    return Cameras(
        camera_to_worlds=poses,
        # nerfstudio's own parser of this layout gives focal lengths in double precision and centres in single.
        fx=torch.tensor(columns.fx, dtype=torch.float64)[:, None],
        fy=torch.tensor(columns.fy, dtype=torch.float64)[:, None],
        cx=torch.tensor(columns.cx, dtype=torch.float32)[:, None],
        cy=torch.tensor(columns.cy, dtype=torch.float32)[:, None],
        width=torch.tensor(columns.width)[:, None],
        height=torch.tensor(columns.height)[:, None],
        distortion_params=distortion if bool(distortion.any()) else None,
        camera_type=torch.tensor([kind.value for kind in columns.camera_type])[:, None],
    )


def camera_type(meta: Mapping[str, Any], frame: Mapping[str, Any], where: str) -> CameraType:
    """The kind of projection that `camera_model` or `is_fisheye` state.

    Raises:
        SceneError: nerfstudio does not know the model.
    """
    model = frame.get("camera_model", meta.get("camera_model"))
    if model is None:
        return CameraType.FISHEYE if frame.get("is_fisheye", meta.get("is_fisheye")) else CameraType.PERSPECTIVE
    if not isinstance(model, str) or model not in CAMERA_MODEL_TO_TYPE:
        raise SceneError(f"{where} has the camera_model {model!r}; known are {', '.join(CAMERA_MODEL_TO_TYPE)}")
    return CAMERA_MODEL_TO_TYPE[model]


def fit_size(stated: tuple[float, float], actual: tuple[int, int]) -> bool:
    """Whether an image of `actual` width and height is one of the `stated` size, made smaller or larger and rounded."""
    low = max((now - 1) / then for now, then in zip(actual, stated))
    high = min((now + 1) / then for now, then in zip(actual, stated))
    return low <= high


def _of(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: content[key] for key in KEYS if content.get(key) is not None}


def _number(value: Any, key: str, where: str) -> float:
    if key in ("camera_angle_x", "camera_angle_y") and not _between(value, math.pi):
        raise SceneError(f"{where}: {key} must lie between 0 and pi radians, not {value!r} (focal length)")
    if key in ("x_fov", "y_fov") and not _between(value, 180):
        raise SceneError(f"{where}: {key} must lie between 0 and 180 degrees, not {value!r}")
    if not is_number(value) or (key in ("fl_x", "fl_y", "w", "h") and value <= 0):
        wanted = "a positive number of pixels" if key in ("fl_x", "fl_y", "w", "h") else "a finite number"
        raise SceneError(f"{where}: {key} must be {wanted}, not {value!r}")
    return value


def _between(value: Any, high: float) -> bool:
    return is_number(value) and 0 < value < high


def _stated_size(stated: Mapping[str, float], size: tuple[int, int], where: str) -> tuple[float, float]:
    width, height = stated.get("w", size[0]), stated.get("h", size[1])
    if (width, height) != size and not fit_size((width, height), size):
        raise SceneError(
            f"{where}: the image is {size[0]} x {size[1]} pixels, but its camera {width:g} x {height:g} (w, h)"
        )
    return width, height


def _focal(
    meta: Mapping[str, Any],
    frame: Mapping[str, Any],
    keys: tuple[str, str, str],
    side: float,
    kind: CameraType,
    where: str,
) -> float | None:
    """A focal length in pixels from a statement in pixels, in radians or in degrees; ``side`` is in pixels."""
    content = frame if any(frame.get(key) is not None for key in keys) else meta
    pixels, radians, degrees = (content.get(key) for key in keys)
    found: dict[str, float] = {}
    if pixels is not None:
        found[keys[0]] = float(pixels)
    if pixels is None or kind is CameraType.PERSPECTIVE:  # angles of other projections mean something else
        if radians is not None:
            found[keys[1]] = float(0.5 * side / np.tan(0.5 * float(radians)))
        if degrees is not None:
            found[keys[2]] = float(0.5 * side / np.tan(0.5 * np.deg2rad(degrees)))
    if keys[0] == "fl_y" and pixels is not None:
        return found[keys[0]]  # Blender's `angle_y` is the sensor's, whatever the image's shape
    if found and max(found.values()) > (1 + FOCAL_TOLERANCE) * min(found.values()):
        said = " and ".join(f"{value:.6g} by {key}" for key, value in found.items())
        raise SceneError(f"{where} states two focal lengths, {said}: remove the wrong one")
    return next(iter(found.values()), None)


def _distortion(
    meta: Mapping[str, Any], frame: Mapping[str, Any], stated: Mapping[str, float], where: str
) -> tuple[float, ...]:
    listed = frame.get("distortion_params", meta.get("distortion_params"))
    if listed is None:
        return tuple(get_distortion_params(**{key: float(stated.get(key, 0)) for key in DISTORTION}).tolist())
    if not isinstance(listed, list) or len(listed) != len(DISTORTION) or not all(map(is_number, listed)):
        raise SceneError(f"{where}: distortion_params must be the six numbers {', '.join(DISTORTION)}")
    return tuple(map(float, listed))
