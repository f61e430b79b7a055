"""The authors' files: base models (`ckpt.npz`) and differences (`grid_delta*/0001.pth`, `grid_delta*_z/0001.npz`).

A `.npz` difference is one pickled dictionary, a `.pth` one torch's. Both are read without running what they name.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perception.engine.atomic import replacing
from perception.engine.plain_pickle import RefusedPickleError, load_tensors, read_pickled_array
from projects.streamrf.delta import SH_CHANNELS, FieldState, FrameDelta, StreamError

MAX_MEMBER = 1 << 33  # bytes of one array
BASIS_SH = 1
FAULTS = (ValueError, KeyError, EOFError, TypeError, RuntimeError, AttributeError, IndexError, pickle.UnpicklingError)


def read_base(path: Path) -> FieldState:
    """A base model; rows come in row-major order, whatever order the file has.

    Raises:
        StreamError: it is missing, damaged or something else.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            links = arrays["links"].astype(np.int64)
            density, sh = arrays["density_data"].astype(np.float32), arrays["sh_data"].astype(np.float32)
            vectors = [torch.from_numpy(arrays[name].astype(np.float32).reshape(3)) for name in ("radius", "center")]
            basis = int(arrays["basis_type"]) if "basis_type" in arrays else BASIS_SH
    except OSError as error:
        raise StreamError(f"cannot read {path}: {error.strerror or error}") from None
    except (*FAULTS, zipfile.BadZipFile) as error:
        raise StreamError(f"{path} is not a base model: {_reason(error)}") from None
    if basis != BASIS_SH or sh.ndim != 2 or sh.shape[1] != SH_CHANNELS or density.shape != (len(sh), 1):
        raise StreamError(f"{path} has no {SH_CHANNELS} spherical harmonics for each voxel: {sh.shape}, basis {basis}")
    if links.ndim != 3 or links.max(initial=-1) >= len(sh):
        raise StreamError(f"{path} has links {links.shape} beyond its {len(sh)} rows")
    active = links >= 0  # empty ones below -1 say how far a ray may skip
    rows = links[active]
    return FieldState(torch.from_numpy(active), torch.from_numpy(density[rows]), torch.from_numpy(sh[rows]), *vectors)


def write_base(path: Path, state: FieldState) -> None:
    """Write a field as a base model; its harmonics become float16, as in the authors' files."""
    active = state.active.numpy()
    links = np.where(active, np.cumsum(active.ravel(), dtype=np.int64).reshape(active.shape) - 1, -1)
    with replacing(path) as file:
        np.savez(
            file,
            radius=state.radius.numpy(),
            center=state.center.numpy(),
            links=links.astype(np.int32),
            density_data=state.density.numpy(),
            sh_data=state.sh.numpy().astype(np.float16),
            basis_type=BASIS_SH,
        )


def read_delta(path: Path, frame: int, before: FieldState) -> FrameDelta:
    """A difference, `.npz` (float16) or `.pth` (float32).

    Args:
        path: of the file.
        frame: its number.
        before: the field that it builds on, which says how many bits the masks of `.npz` have.

    Raises:
        StreamError: it is missing, damaged, holds something else than arrays, or belongs to another field.
    """
    path = Path(path)
    content = _npz(path) if path.suffix == ".npz" else _pth(path)
    try:
        if path.suffix == ".npz":
            active = _bits(content["mask_next"], before.active.numel()).view(before.size)
            common = int((active & before.active).sum())
            changed = _bits(content["mask_keep"], common)
        else:
            active, changed = content["mask_next"].bool(), content["part2_keep_area"].bool().reshape(-1)
            if active.shape != before.active.shape:
                raise ValueError(f"it is of a grid of {tuple(active.shape)} voxels, the field before of {before.size}")
            common = int((active & before.active).sum())
        added = int((active & ~before.active).sum())
        values = {name: torch.as_tensor(content[name]) for name in NAMES}
        stated = (len(changed), len(values["addition_sh"]), len(values["keep_sh"]))
        if stated != (common, added, int(changed.sum())):
            raise ValueError(
                f"it has {stated[0]} common, {stated[1]} added and {stated[2]} changed voxels, where the field before "
                f"gives {common}, {added} and {int(changed.sum())}: the base is another one"
            )
        parts = {ours: values[theirs].detach().contiguous() for theirs, ours in NAMES.items()}
        return FrameDelta(frame, active.contiguous(), changed.contiguous(), **parts)
    except FAULTS as error:
        raise StreamError(f"{path} does not fit frame {frame}: {_reason(error)}") from None


NAMES = {
    "addition_density": "added_density",
    "addition_sh": "added_sh",
    "keep_density": "changed_density",
    "keep_sh": "changed_sh",
}
"""Of arrays, theirs and ours."""


def write_npz(path: Path, delta: FrameDelta) -> None:
    """Write a difference as the authors' compressed file, float16."""
    content: dict[str, np.ndarray] = {
        "mask_next": np.packbits(delta.active.numpy()),
        "mask_keep": np.packbits(delta.changed.numpy()),
    }
    content |= {theirs: getattr(delta, ours).numpy().astype(np.float16) for theirs, ours in NAMES.items()}
    with replacing(path) as file:
        np.savez_compressed(file, content)


def write_pth(path: Path, delta: FrameDelta) -> None:
    """Write a difference as the authors' uncompressed file, float32."""
    content: dict[str, Tensor] = {"mask_next": delta.active, "part2_keep_area": delta.changed}
    content |= {theirs: getattr(delta, ours).float() for theirs, ours in NAMES.items()}
    written = io.BytesIO()  # torch's writer hides why a file cannot be written
    torch.save(content, written)
    with replacing(path) as file:
        file.write(written.getbuffer())


def _bits(packed: np.ndarray, count: int) -> Tensor:
    if packed.size != -(-count // 8):
        raise ValueError(f"a mask of {packed.size} bytes for {count} voxels")
    return torch.from_numpy(np.unpackbits(packed.reshape(-1), count=count).view(bool).copy())


def _npz(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            (info,) = archive.infolist()
            if info.file_size > MAX_MEMBER:
                raise ValueError(f"it claims to hold {info.file_size} bytes")
            content = read_pickled_array(archive.read(info))
    except OSError as error:
        raise StreamError(f"cannot read {path}: {error.strerror or error}") from None
    except RefusedPickleError as error:
        raise StreamError(f"{path} {error}") from None
    except (*FAULTS, zipfile.BadZipFile) as error:
        raise StreamError(f"{path} is not a difference of the released code: {_reason(error)}") from None
    if not isinstance(content, dict):
        raise StreamError(f"{path} is not a difference of the released code: it holds no dictionary")
    return content


def _pth(path: Path) -> dict[str, Any]:
    try:
        content = load_tensors(path)
    except OSError as error:
        raise StreamError(f"cannot read {path}: {error.strerror or error}") from None
    except pickle.UnpicklingError:  # torch's own words advise to read the file without this protection
        raise StreamError(f"{path} holds more than tensors, or is damaged or cut short: it is not read") from None
    if not isinstance(content, dict):
        raise StreamError(f"{path} is not a difference of the released code: it holds no dictionary")
    return content


def _reason(error: Exception) -> str:
    text = (str(error) or type(error).__name__).splitlines()[0]
    return f"it lacks {text}" if isinstance(error, KeyError) else text
