"""`intrinsics.txt` of folders in NSVF layout and of Tanks&Temples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from perception.studio.errors import SceneError

NEAR_SHARE = 0.05  # of far, for NSVF scenes
OFF_CENTRE = 0.05  # of the image's side, beyond which a principal point that is off alike in x and y is remarked on


@dataclass(frozen=True)
class StatedIntrinsics:
    """What the file says; ``None`` where it does not."""

    path: Path
    fx: float
    fy: float
    centre: tuple[float, float] | None = None
    size: tuple[int, int] | None = None
    """Width and height to which the numbers belong; images of this shape and another size get scaled ones."""
    near: float | None = None
    is_matrix: bool = False

    def near_of(self, far: float) -> float:
        """The smallest depth of a scene that reaches to ``far``."""
        if self.near is not None:
            return self.near
        return 0.0 if self.is_matrix else NEAR_SHARE * far

    def cameras(self, poses: Tensor, sizes: list[tuple[int, int]]) -> Cameras:
        """Cameras with poses (N, 3, 4) for images of these widths and heights.

        Raises:
            SceneError: the principal point lies outside the images.
        """
        size = torch.tensor(sizes, dtype=torch.float64)  # (N, 2)
        scale = size / torch.tensor(self.size, dtype=torch.float64) if self.size else torch.ones_like(size)
        focal = torch.tensor([self.fx, self.fy], dtype=torch.float64) * scale
        centre = size / 2 if self.centre is None else torch.tensor(self.centre, dtype=torch.float64) * scale
        self._check_centre(centre[0].tolist(), sizes[0])
        return Cameras(
            camera_to_worlds=poses,
            fx=focal[:, :1].float(),
            fy=focal[:, 1:].float(),
            cx=centre[:, :1].float(),
            cy=centre[:, 1:].float(),
            width=size[:, :1].long(),
            height=size[:, 1:].long(),
            camera_type=CameraType.PERSPECTIVE,
        )

    def _check_centre(self, centre: list[float], size: tuple[int, int]) -> None:
        shares = [place / side for place, side in zip(centre, size)]
        where = f"{self.path} has its principal point at ({centre[0]:g}, {centre[1]:g}) in images of"
        meant = f"{2 * centre[0]:g} x {2 * centre[1]:g}"
        if not all(0 < share < 1 for share in shares):
            raise SceneError(f"{where} {size[0]} x {size[1]} pixels: do its numbers belong to images of {meant}?")
        if abs(shares[0] - shares[1]) < 0.01 and abs(shares[0] - 0.5) > OFF_CENTRE:
            CONSOLE.log(f"[yellow]{where} {size[0]} x {size[1]} pixels: do its numbers belong to images of {meant}?")


def read_intrinsics(path: Path) -> StatedIntrinsics:
    """Read a matrix (3 x 3 or 4 x 4), or NSVF's lines: `f cx cy 0`, barycentre, near plane, scale, `height width`.

    A file of less, down to one focal length, is taken for what it states.

    Raises:
        SceneError: the file is missing, holds something else, or states the impossible.
    """
    rows = read_numbers(path)
    if not all(math.isfinite(number) for row in rows for number in row):
        raise SceneError(f"{path} holds numbers that are not finite")
    is_matrix = len(rows) in (3, 4) and all(len(row) == len(rows) for row in rows)
    stated = _of_matrix(path, rows) if is_matrix else _of_lines(path, rows)
    for focal in (stated.fx, stated.fy):
        if focal <= 0:
            raise SceneError(f"{path} gives a focal length of {focal} pixels; it must be positive")
    return stated


def _of_matrix(path: Path, rows: list[list[float]]) -> StatedIntrinsics:
    (fx, skew, cx), (_, fy, cy) = rows[0][:3], rows[1][:3]
    if abs(skew) > 1e-6 * abs(fx):
        raise SceneError(f"{path} states a skew of {skew:g} pixels; cameras with skew are not supported")
    return StatedIntrinsics(path, fx, fy, (cx, cy), is_matrix=True)


def _of_lines(path: Path, rows: list[list[float]]) -> StatedIntrinsics:
    focal, centre = rows[0][0], tuple(rows[0][1:3]) if len(rows[0]) >= 3 else None
    near = rows[2][0] if len(rows) >= 3 and len(rows[2]) == 1 and rows[2][0] > 0 else None
    size = None
    if len(rows) >= 2 and len(rows[-1]) == 2:
        height, width = rows[-1]
        if min(height, width) < 1 or height % 1 or width % 1:
            raise SceneError(f"{path} ends with an image size of {height:g} x {width:g} (height, width)")
        size = (int(width), int(height))
    return StatedIntrinsics(path, focal, focal, centre, size, near)


def read_numbers(path: Path) -> list[list[float]]:
    """The rows of a text file of numbers, without empty lines.

    Raises:
        SceneError: it is missing or empty, or holds other words.
    """
    try:
        rows = [[float(word) for word in line.split()] for line in path.read_text().splitlines() if line.strip()]
    except OSError:
        raise SceneError(f"the scene has no {path}") from None
    except ValueError as error:
        raise SceneError(f"{path} must hold numbers only: {error}") from None
    if not rows:
        raise SceneError(f"{path} is empty")
    return rows
