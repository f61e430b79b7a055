"""`poses_bounds.npy` of LLFF scenes: poses, image sizes, focal lengths and depth bounds of all images in one table.

A row of 17 numbers is a 3 x 5 matrix, row by row, and two depths. The matrix has the camera's axes down, right and
backwards and its place, camera-to-world, and as its last column height, width and focal length in pixels. A row of 14
lacks that column; `hwf_cxcy.npy` beside it then holds height, width, focal length (or one along each axis) and the
principal point, for all images or for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from perception.geometry.se3 import compose
from perception.studio.errors import SceneError
from perception.studio.findings import counted
from perception.studio.transforms import check_pose

FILE = "poses_bounds.npy"
INTRINSICS_FILE = "hwf_cxcy.npy"
OUTLIER = 0.05  # of the median near bound, below which one bound would shrink the whole scene
REMEDY = "pass --near and --far after `llff-data`, or make the file anew"


@dataclass(frozen=True)
class PosesBounds:
    """What the file says of N images, in its own frame and units, in double precision."""

    path: Path
    poses: Tensor
    """(N, 4, 4) camera-to-world, OpenGL axes (right, up, backwards)."""
    bounds: Tensor
    """(N, 2) smallest and largest depth along the viewing axis."""
    sizes: Tensor
    """(N, 2) width and height in pixels."""
    focals: Tensor
    """(N, 2) focal lengths fx and fy in pixels of an image of that size."""
    centres: Tensor | None = None
    """(N, 2) principal point in pixels; the image's centre where it is not stated."""

    def __len__(self) -> int:
        return len(self.poses)


def read_poses_bounds(folder: Path, near: float | None = None, far: float | None = None) -> PosesBounds:
    """Read a scene's table.

    Args:
        folder: of the scene.
        near, far: bounds that replace those of all rows, in the file's units.

    Raises:
        SceneError: it is missing or no such table, or states something impossible; the sentence counts rows at fault.
    """
    path = folder / FILE
    table = _read(path)
    if table.ndim != 2 or table.shape[1] not in (14, 17) or not len(table):
        turned = ": it seems to be transposed" if table.ndim == 2 and table.shape[0] in (14, 17) else ""
        raise SceneError(f"{path} must be a table of N rows of 17 numbers, not of the shape {table.shape}{turned}")
    if faults := [f"{path}: row {row} holds numbers that are not finite" for row in _not_finite(table)]:
        raise SceneError(counted(faults))
    if table.shape[1] == 17:
        matrices, intrinsics = table[:, :15].reshape(-1, 3, 5), None
        shapes = matrices[:, [0, 1, 2, 2], 4]  # height, width, focal length twice
    else:
        matrices, intrinsics = table[:, :12].reshape(-1, 3, 4), _read_intrinsics(folder, len(table))
        shapes = intrinsics[:, :4]
    down, right, back, place = (matrices[:, :, column] for column in range(4))
    poses = compose(torch.from_numpy(np.stack([right, -down, back], -1)), torch.from_numpy(place.copy()))
    _check_rows(path, poses, shapes)
    return PosesBounds(
        path=path,
        poses=poses,
        bounds=torch.from_numpy(_bounds(path, table[:, -2:], near, far)),
        sizes=torch.from_numpy(shapes[:, [1, 0]].copy()),
        focals=torch.from_numpy(shapes[:, 2:].copy()),
        centres=None if intrinsics is None else torch.from_numpy(intrinsics[:, 4:].copy()),
    )


def _read(path: Path) -> np.ndarray:
    try:
        table = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise SceneError(f"the scene has no {path}") from None
    except (OSError, ValueError, EOFError) as error:
        raise SceneError(f"cannot read {path}: {error}") from None
    if not isinstance(table, np.ndarray) or table.dtype.kind not in "fiu":
        raise SceneError(f"{path} must hold one table of numbers")
    return table.astype(np.float64)


def _not_finite(table: np.ndarray) -> list[int]:
    return np.flatnonzero(~np.isfinite(table).all(1)).tolist()


def _read_intrinsics(folder: Path, count: int) -> np.ndarray:
    """Height, width, fx, fy, cx and cy of each image (N, 6)."""
    path = folder / INTRINSICS_FILE
    if not path.is_file():
        raise SceneError(
            f"{folder / FILE} has rows of 14 numbers, without sizes and focal lengths, and there is no {path.name} "
            "(height, width, focal length or fx and fy, cx, cy) beside it"
        )
    table = _read(path)
    rows = table
    if table.size in (5, 6):
        rows = table.reshape(1, -1)
    elif table.ndim == 2 and table.shape[0] in (5, 6) and table.shape[1] == count and count not in (5, 6):
        rows = table.T
    if rows.ndim != 2 or rows.shape[1] not in (5, 6) or len(rows) not in (1, count):
        raise SceneError(
            f"{path} must hold five or six numbers, or so many for each of {count} images, not the shape {table.shape}"
        )
    if not np.isfinite(rows).all():
        raise SceneError(f"{path} holds numbers that are not finite")
    if rows.shape[1] == 5:
        rows = rows[:, [0, 1, 2, 2, 3, 4]]
    return np.broadcast_to(rows, (count, 6))


def _check_rows(path: Path, poses: Tensor, shapes: np.ndarray) -> None:
    faults, shape_faults = [], []
    for row, (pose, (height, width, *focals)) in enumerate(zip(poses, shapes.tolist())):
        try:
            check_pose(pose, f"{path}: row {row}")
        except SceneError as error:
            faults.append(f"{error}: its columns must be the camera's axes down, right, backwards, camera-to-world")
        if min(height, width) < 1 or min(focals) <= 0:
            shape_faults.append(
                f"{path}: row {row} gives height {height:g}, width {width:g} and focal length {min(focals):g}; all "
                "must be positive"
            )
    if kinds := [counted(kind) for kind in (faults, shape_faults) if kind]:
        raise SceneError("; ".join(kinds))


def _bounds(path: Path, stated: np.ndarray, near: float | None, far: float | None) -> np.ndarray:
    bounds = stated.copy()
    for column, value in enumerate((near, far)):
        if value is not None:
            bounds[:, column] = value
    faults = []
    for row, (low, high) in enumerate(bounds.tolist()):
        if low <= 0:
            faults.append(f"{path}: row {row}: near bound {low:g} is not positive; {REMEDY}")
        elif high <= low:
            faults.append(f"{path}: row {row}: near bound {low:g} is not below the far bound {high:g}; {REMEDY}")
    if faults:
        raise SceneError(counted(faults))
    median = float(np.median(bounds[:, 0]))
    outliers = np.flatnonzero(bounds[:, 0] < OUTLIER * median)
    if len(outliers):
        lowest = float(bounds[:, 0].min())
        raise SceneError(
            f"{path}: row {int(bounds[:, 0].argmin())}: near bound {lowest:g} is far below those of the others (median "
            f"{median:g}), and the scene's scale goes by the smallest one; {REMEDY}"
        )
    return bounds
