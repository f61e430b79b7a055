"""Files of points, by what they hold: raw floats, PCD, PLY, NumPy, LAS."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .cloud import Cloud, UnreadableCloudError, from_columns, in_metres
from .pcd import is_pcd, read_pcd

SUFFIXES = {".bin", ".pcd", ".ply", ".npy", ".npz", ".las", ".laz"}
"""Of files that are clouds by their names."""
KITTI = ("x", "y", "z", "intensity")
NUSCENES = ("x", "y", "z", "intensity", "ring")
_FURTHEST = 1e7
"""Metres: no coordinate of any map is larger. Raw floats that are were written otherwise, or in other columns."""


def read_cloud(path: Path, columns: Sequence[str] | None = None, unit: float = 1.0) -> Cloud:
    """The points of a file, in metres.

    Args:
        path: of the file.
        columns: names of the columns of raw floats and of plain arrays; by default x, y, z, intensity, and the ring as
            fifth where the file is called ``.pcd.bin`` as nuScenes' are. Formats with names of their own ignore them.
        unit: of the file's coordinates, metres.

    Raises:
        UnreadableCloudError: it holds no cloud.
        OSError: it cannot be read.
    """
    return in_metres(_points(path, columns), unit)


def _points(path: Path, columns: Sequence[str] | None) -> Cloud:
    data = path.read_bytes()
    if not data:
        raise UnreadableCloudError("it is empty")
    if is_pcd(data[:16]):
        return read_pcd(data)
    if data.startswith((b"ply\n", b"ply\r")):
        return _ply(data)
    if data.startswith(b"\x93NUMPY"):
        return _array(_numpy(data), columns)
    if data.startswith(b"PK\x03\x04"):
        return _archive(data, columns)
    if data.startswith(b"LASF"):
        return _las(data)
    if _is_text(data[:4096]):
        raise UnreadableCloudError("it is a text, not a cloud")
    return _raw(data, columns or (NUSCENES if path.name.endswith(".pcd.bin") else KITTI))


def _raw(data: bytes, columns: Sequence[str]) -> Cloud:
    row = 4 * len(columns)
    if len(data) % row:
        raise UnreadableCloudError(
            f"its {len(data)} bytes are no multiple of a point's {row}, which are {', '.join(columns)} as float32"
        )
    rows = np.frombuffer(data, "<f4").reshape(-1, len(columns))
    by_name = {name: rows[:, number] for number, name in enumerate(columns)}
    if all(axis in by_name for axis in "xyz"):
        with np.errstate(invalid="ignore"):
            far = sum(((np.abs(by_name[axis]) > _FURTHEST) & np.isfinite(by_name[axis])).sum() for axis in "xyz")
        if far:
            raise UnreadableCloudError(
                f"read as float32 in the columns {', '.join(columns)}, {far} of its coordinates are beyond 10 000 km"
            )
    return from_columns(by_name)


def _numpy(data: bytes) -> np.ndarray:
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UnreadableCloudError(f"its array cannot be read ({error})") from error


def _archive(data: bytes, columns: Sequence[str] | None) -> Cloud:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, KeyError) as error:
        raise UnreadableCloudError(f"its arrays cannot be read ({error})") from error
    if all(axis in arrays for axis in "xyz"):
        return from_columns({name: array for name, array in arrays.items() if array.shape == arrays["x"].shape})
    tables = [name for name in ("points", "xyz", "data", *arrays) if name in arrays]
    if not tables:
        raise UnreadableCloudError("it holds no array")
    if len(arrays) > 1 and tables[0] not in ("points", "xyz", "data"):
        raise UnreadableCloudError(f"which of its arrays are the points? They are called {', '.join(arrays)}")
    return _array(arrays[tables[0]], columns)


def _array(array: np.ndarray, columns: Sequence[str] | None) -> Cloud:
    if array.dtype.names:
        return from_columns(
            {name: array[name].reshape(-1) for name in array.dtype.names if array[name].ndim == array.ndim}
        )
    if array.ndim == 3 and array.shape[2] >= 3:  # an organised cloud: rings x beams
        array = array.reshape(-1, array.shape[2])
    if array.ndim != 2 or array.shape[1] < 3 or array.shape[1] > 64:
        raise UnreadableCloudError(f"its shape is {array.shape}; one point per row is expected, (N, 3) or more")
    if array.dtype.kind not in "fiu":
        raise UnreadableCloudError(f"its numbers are of type {array.dtype}")
    names = list(columns or KITTI)[: array.shape[1]]
    if columns and len(columns) != array.shape[1]:
        raise UnreadableCloudError(f"it has {array.shape[1]} columns, but {len(columns)} names are given")
    names += [f"column{number + 1}" for number in range(len(names), array.shape[1])]
    return from_columns({name: array[:, number] for number, name in enumerate(names)})


def _ply(data: bytes) -> Cloud:
    from plyfile import PlyData, PlyParseError

    try:
        parsed = PlyData.read(io.BytesIO(data))
    except (PlyParseError, ValueError, EOFError) as error:
        raise UnreadableCloudError(f"its PLY cannot be read ({error})") from error
    if "vertex" not in parsed:
        raise UnreadableCloudError("its PLY has no vertices")
    rows = parsed["vertex"].data
    plain = [name for name in rows.dtype.names if rows[name].dtype != object]
    return from_columns({name: rows[name].astype(rows[name].dtype.newbyteorder("=")) for name in plain})


def _las(data: bytes) -> Cloud:
    try:
        import laspy
    except ImportError as error:
        raise UnreadableCloudError("LAS and LAZ need laspy: pip install laspy[lazrs]") from error
    try:
        parsed = laspy.read(io.BytesIO(data))
    except Exception as error:  # laspy and its decompressors fail in their own ways
        raise UnreadableCloudError(f"its LAS cannot be read ({error})") from error
    columns = {axis: np.asarray(getattr(parsed, axis), np.float64) for axis in "xyz"}  # scaled, with offset
    return from_columns({**columns, "intensity": np.asarray(parsed.intensity)})


def _is_text(start: bytes) -> bool:
    try:
        words = start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 4:  # not only cut within a character
            return False
        words = start[: error.start].decode("utf-8")
    return bool(words) and all(letter.isprintable() or letter in "\r\n\t" for letter in words)
