"""The files of KITTI tracking: labels, calibrations, clouds. Worker processes import this module."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from perception.engine.errors import UserError

_PLACEHOLDER = "DontCare"
_COLUMNS = 17


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
