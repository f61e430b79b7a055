"""What a file of points holds, and what of it is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

AXES = ("x", "y", "z")
INTENSITY = ("intensity", "i", "reflectivity", "reflectance")
"""Names under which formats keep how strongly a point reflects."""
_WIDEST = 1000.0  # metres; no sensor on a vehicle sees half of its points so far away


class UnreadableCloudError(Exception):
    """A file that cannot be a cloud; the message is the reason, without the file's name."""


@dataclass(frozen=True)
class Cloud:
    """Points and what was measured at them.

    Attributes:
        xyz: (N, 3) float32, or float64 where the file has it or coordinates are those of a map; metres.
        columns: further columns (N,) by name, as the file names them, in lower case; intensity is ``intensity``.
        rows: (N,) which rows of the file the points were: those that are no points are left out.
        note: what was left out, for the user; empty for nothing.
    """

    xyz: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    note: str = ""

    def __len__(self) -> int:
        return len(self.xyz)

    @property
    def nbytes(self) -> int:
        """In memory."""
        return self.xyz.nbytes + self.rows.nbytes + sum(column.nbytes for column in self.columns.values())


def from_columns(columns: Mapping[str, np.ndarray]) -> Cloud:
    """A cloud of a file's columns.

    Points with a coordinate that is no number, and points exactly at the origin, where sensors put beams that did not
    return, are left out; other values that are no numbers become 0.

    Args:
        columns: (N,) each, by name.

    Raises:
        UnreadableCloudError: a coordinate is missing, or no point is left.
    """
    columns = {_plain(name): column for name, column in columns.items()}
    missing = [axis for axis in AXES if axis not in columns]
    if missing:
        raise UnreadableCloudError(f"it has no {' and no '.join(missing)}: its columns are {', '.join(columns)}")
    wide = any(columns[axis].dtype.itemsize > 4 for axis in AXES)
    xyz = np.stack([columns[axis] for axis in AXES], -1).astype(np.float64 if wide else np.float32)
    finite = np.isfinite(xyz).all(1)
    returned = (xyz != 0).any(1)
    rows = np.flatnonzero(finite & returned)
    if not len(rows):
        raise UnreadableCloudError(f"none of its {len(xyz)} points is anywhere" if len(xyz) else "it holds no points")
    notes = []
    if count := int((~finite).sum()):
        notes.append(f"{count} of {len(xyz)} points have coordinates that are no numbers")
    if count := int((finite & ~returned).sum()):
        notes.append(f"{count} of {len(xyz)} points are at the origin: beams that did not return")
    others = {}
    for name, column in columns.items():
        if name not in AXES and column.ndim == 1:
            values = column[rows]
            strange = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)
            if strange.any():
                notes.append(f"{name} of {int(strange.sum())} points is no number, and counts as 0")
                values = np.where(strange, 0, values)
            others[name] = values
    return Cloud(xyz[rows], others, rows, "; ".join(notes))


def in_metres(cloud: Cloud, unit: float) -> Cloud:
    """The cloud with coordinates times ``unit``, their unit in metres; its note says where the result is too wide to
    be in metres."""
    xyz = cloud.xyz if unit == 1 else (cloud.xyz.astype(np.float64) * unit).astype(cloud.xyz.dtype)
    places = xyz.astype(np.float64)
    spread = float(np.median(np.linalg.norm(places - np.median(places, 0), axis=1)))
    doubt = f"half of the points are further than {spread:.0f} from their middle: millimetres, not metres?"
    notes = [cloud.note, doubt] if spread > _WIDEST else [cloud.note]
    return replace(cloud, xyz=xyz, note="; ".join(filter(None, notes)))


def _plain(name: str) -> str:
    name = name.lower()
    return "intensity" if name in INTENSITY else name
