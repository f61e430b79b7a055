"""Fields and their differences as coded parts, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from perception.engine.framed_file import Blob
from perception.radiance.bit_coding import decode_bits, encode_bits
from perception.radiance.entropy_coding import CorruptStream
from perception.radiance.row_coding import DENSITY, Columns, Known, decode_rows, encode_rows, sh_columns
from projects.streamrf.delta import SH_CHANNELS, FieldState, FrameDelta

MAX_VOXELS = 1 << 30
BITS, ROWS = "bits", "rows"  # names of coders
SH = sh_columns()
CHANNELS: dict[str, tuple[Columns, int]] = {"density": (DENSITY, 1), "sh": (SH, SH_CHANNELS)}


class Size(tuple[int, int, int]):
    """Voxels along x, y and z."""

    @classmethod
    def of(cls, stated: Any) -> Size:
        """From a header.

        Raises:
            ValueError: it is no size of a grid.
        """
        size = cls(int(side) for side in stated)
        if len(size) != 3 or min(size) < 1 or size[0] * size[1] * size[2] > MAX_VOXELS:
            raise ValueError(f"a grid of {tuple(stated)} voxels")
        return size

    @property
    def voxels(self) -> int:
        """Their number."""
        return self[0] * self[1] * self[2]


def encode_field(state: FieldState) -> list[Blob]:
    """The parts of a whole field.

    Raises:
        ValueError: a number is not finite.
    """
    index = np.flatnonzero(state.active.numpy())
    blobs = [Blob("active", BITS, encode_bits(state.active.numpy().ravel(), period=state.size[2]))]
    for name, (columns, _) in CHANNELS.items():
        blobs.append(Blob(name, ROWS, encode_rows(getattr(state, name).numpy(), index, state.size, columns)))
    return blobs


def decode_field(size: Size, rows: int, radius: Tensor, center: Tensor, parts: dict[str, bytes]) -> FieldState:
    """Restore a field.

    Raises:
        CorruptStream, KeyError: parts are missing, damaged or do not fit the size and the number of voxels.
    """
    active = decode_bits(parts["active"], count=size.voxels)
    index = np.flatnonzero(active)
    if len(index) != rows:
        raise CorruptStream(f"{len(index)} voxels where {rows} are stated")
    values = {
        name: torch.from_numpy(decode_rows(parts[name], index, size, columns).astype(np.float32))
        for name, (columns, _) in CHANNELS.items()
    }
    return FieldState(torch.from_numpy(active).view(*size), values["density"], values["sh"], radius, center)


def encode_delta(before: FieldState, delta: FrameDelta) -> tuple[dict[str, Any], list[Blob]]:
    """The counts of a difference, and its parts.

    Raises:
        ValueError: a number is not finite.
    """
    rows = _Rows(before, delta.active.numpy(), delta.changed.numpy())
    counts = rows.counts()
    blobs = [
        Blob("active", BITS, encode_bits(delta.active.numpy().ravel(), before.active.numpy().ravel())),
        Blob("changed", BITS, encode_bits(delta.changed.numpy())),
    ]
    for name, (columns, _) in CHANNELS.items():
        previous = getattr(before, name).numpy()
        changed, added = (getattr(delta, f"{kind}_{name}").numpy() for kind in ("changed", "added"))
        coded = encode_rows(changed, rows.changed, before.size, columns, previous[rows.changed_before])
        blobs.append(Blob(f"changed_{name}", ROWS, coded))
        known = rows.known(previous, changed)
        blobs.append(Blob(f"added_{name}", ROWS, encode_rows(added, rows.added, before.size, columns, known=known)))
    return counts, blobs


def decode_delta(before: FieldState, header: dict[str, Any], parts: dict[str, bytes]) -> FrameDelta:
    """Restore a difference to a field.

    Args:
        before: the field of the frame before.
        header: `frame`, `half`, `size` and the counts of :func:`encode_delta`.
        parts: by name.

    Raises:
        CorruptStream, KeyError, ValueError: parts are missing, damaged, or do not fit the counts, or the field before
            is another one.
    """
    if Size.of(header["size"]) != before.size or header["n_before"] != len(before.sh):
        raise CorruptStream(
            f"it builds on {header['n_before']} voxels of a grid of {tuple(header['size'])}, but the frame before has "
            f"{len(before.sh)} of {before.size}"
        )
    active = decode_bits(parts["active"], before.active.numpy().ravel(), count=before.active.numel())
    active = active.reshape(before.size)
    changed = decode_bits(parts["changed"], count=_count(header, "n_common", len(before.sh)))
    rows = _Rows(before, active, changed)
    if rows.counts() != {name: header[name] for name in rows.counts()}:
        raise CorruptStream(f"its masks give {rows.counts()}, and its header states other counts")
    kind = np.float16 if header["half"] else np.float32
    values: dict[str, Tensor] = {}
    for name, (columns, _) in CHANNELS.items():
        previous = getattr(before, name).numpy()
        start = previous[rows.changed_before]
        new = decode_rows(parts[f"changed_{name}"], rows.changed, before.size, columns, start)
        known = rows.known(previous, new)
        added = decode_rows(parts[f"added_{name}"], rows.added, before.size, columns, known=known)
        values[f"changed_{name}"], values[f"added_{name}"] = (torch.from_numpy(x.astype(kind)) for x in (new, added))
    return FrameDelta(int(header["frame"]), torch.from_numpy(active), torch.from_numpy(changed), **values)


class _Rows:
    """Which voxels a difference is about: flat indices, and rows of the field before."""

    def __init__(self, before: FieldState, active: np.ndarray, changed: np.ndarray):
        old = before.active.numpy().ravel()
        new = active.ravel()
        self.size, self.before = before.size, len(before.sh)
        old_index = np.flatnonzero(old)
        common = new[old_index]
        if int(common.sum()) != len(changed):
            raise CorruptStream(f"{len(changed)} voxels in common are stated, and there are {int(common.sum())}")
        self._common, self._kept = old_index[common], np.flatnonzero(common)
        self._is_changed = changed
        self.changed, self.changed_before = self._common[changed], self._kept[changed]
        self.added = np.flatnonzero(new & ~old)

    def counts(self) -> dict[str, Any]:
        """As a header states them."""
        common, added = len(self._common), len(self.added)
        return {
            "size": list(self.size),
            "n_before": self.before,
            "n_next": common + added,
            "n_common": common,
            "n_added": added,
            "n_changed": len(self.changed),
        }

    def known(self, previous: np.ndarray, changed: np.ndarray) -> Known:
        """What is known of common voxels around the added ones when these are coded."""
        values = previous[self._kept]
        values[self._is_changed] = changed
        return Known(self._common, values)


def _count(header: dict[str, Any], name: str, most: int) -> int:
    count = header[name]
    if not isinstance(count, int) or not 0 <= count <= most:
        raise CorruptStream(f"{name} is {count}, of at most {most}")
    return count
