"""The authors' files: their checkpoints (`*_last.tar`) and their folders of compressed arrays (`extreme_saving`).

The arrays that hold Python objects are pickles. They are read by an unpickler that knows only tensors, NumPy arrays and
plain containers; anything else is refused before it runs.
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perception.engine.errors import UserError
from perception.engine.plain_pickle import RefusedPickleError, load_tensors, read_pickled_array
from perception.radiance.dvgo import DirectVoxGO
from perception.radiance.released import released_field, voxel_kwargs
from projects.vqrf.compression import CompressedGrids
from projects.vqrf.pruning import VoxelClasses
from projects.vqrf.quantization import Int8Tensor

PARTS = ("non_prune_density", "non_vq_grid", "non_prune_mask", "keep_mask", "vq_indexs", "codebook")
OBJECTS = ("rgbnet", "metadata")
ALIGN_CORNERS = False  # how the released code reads its grids, see DenseGrid
DEFAULT_RENDER = {"near": 2.0, "far": 6.0, "stepsize": 0.5, "background": [1.0, 1.0, 1.0]}
MAX_MEMBER = 1 << 31  # bytes of one array


class ReleasedFileError(UserError):
    """A file is not one that the released code writes."""


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a released checkpoint: ``global_step``, ``model_kwargs``, ``model_state_dict``, all on the CPU.

    Raises:
        ReleasedFileError: it is missing, damaged, holds other objects than arrays and tensors, or lacks these entries.
    """
    try:
        content = load_tensors(path, _numpy_globals())
    except OSError as error:
        raise ReleasedFileError(f"cannot read {path}: {error.strerror or error}") from None
    except pickle.UnpicklingError as error:
        blocked = re.search(r"GLOBAL (\S+)", str(error))
        # torch's own words advise to read the file without this protection.
        reason = f"it holds {blocked[1]}, which is not read" if blocked else "it is damaged, cut short or another file"
        raise ReleasedFileError(f"{path} is not a checkpoint of tensors and arrays alone: {reason}") from None
    if not isinstance(content, dict) or not {"model_kwargs", "model_state_dict"} <= content.keys():
        raise ReleasedFileError(f"{path} is not a checkpoint of the released code: no model_kwargs, model_state_dict")
    return content


def import_folder(folder: Path, render: dict[str, Any] | None = None) -> CompressedGrids:
    """Read a released folder of compressed arrays.

    Args:
        folder: with `metadata.npz`, `rgbnet.npz` and the six arrays.
        render: `near`, `far`, `stepsize` and `background`, which the folder does not hold; by default those of the
            synthetic NeRF scenes.

    Raises:
        ReleasedFileError: a file is missing, damaged, or holds other objects than tensors and arrays.
    """
    arrays = {name: _array(folder / f"{name}.npz") for name in PARTS}
    rgbnet = _object(folder / "rgbnet.npz")
    metadata = _object(folder / "metadata.npz")
    try:
        return _assemble(arrays, rgbnet, metadata, {**DEFAULT_RENDER, **(render or {})})
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise ReleasedFileError(f"the files in {folder} do not fit together: {_first_line(error)}") from None


def checkpoint_field(content: dict[str, Any]) -> DirectVoxGO:
    """The field of a released checkpoint, coarse, fine or of the last stage.

    Args:
        content: from :func:`load_checkpoint`.

    Raises:
        ReleasedFileError: its settings and its tensors do not fit together.
    """
    state = {name: value for name, value in content["model_state_dict"].items() if not name.startswith("vq.")}
    try:
        field = released_field(content["model_kwargs"], state, align_corners=ALIGN_CORNERS)
    except ValueError as error:
        raise ReleasedFileError(str(error)) from None
    if not isinstance(field, DirectVoxGO):
        raise ReleasedFileError("the checkpoint is of a forward-facing scene, which the method has no field for")
    return field


def _assemble(arrays: dict[str, np.ndarray], rgbnet: Any, metadata: Any, render: dict[str, Any]) -> CompressedGrids:
    kwargs, state = metadata["model_kwargs"], metadata["model_state_dict"]
    world_size = tuple(int(size) for size in metadata["world_size"])
    voxels = int(np.prod(world_size))
    non_prune, keep = (_bits(arrays[name], voxels) for name in ("non_prune_mask", "keep_mask"))
    keep &= non_prune
    vq = VoxelClasses(non_prune, keep).vq
    codebook = torch.from_numpy(arrays["codebook"]).reshape(-1, arrays["codebook"].shape[-1]).half()
    return CompressedGrids(
        world_size=world_size,
        xyz_min=_vector(state["xyz_min"]),
        xyz_max=_vector(state["xyz_max"]),
        act_shift=float(state["act_shift"]),
        field_kwargs=voxel_kwargs(kwargs) | {"align_corners": ALIGN_CORNERS},
        render=render,
        non_prune=non_prune,
        keep=keep,
        density=_int8(arrays["non_prune_density"].reshape(-1), metadata["density_dequant"]),
        kept=_int8(arrays["non_vq_grid"].reshape(-1, codebook.shape[1]), metadata["grid_dequant"]),
        codes=_codes(arrays["vq_indexs"], int(vq.sum()), len(codebook)),
        codebook=codebook,
        rgbnet={name.removeprefix("rgbnet."): value.half() for name, value in rgbnet.items()},
    )


def _vector(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32).reshape(3)


def _bits(packed: np.ndarray, count: int) -> Tensor:
    if packed.size != -(-count // 8):
        raise ValueError(f"a mask of {packed.size} bytes for {count} voxels")
    return torch.from_numpy(np.unpackbits(packed.reshape(-1).astype(np.uint8), count=count).astype(bool))


def _codes(packed: np.ndarray, count: int, codebook_size: int) -> Tensor:
    width = max(1, (codebook_size - 1).bit_length())
    if packed.size != -(-count * width // 8):
        raise ValueError(f"{packed.size} bytes of codes for {count} voxels of {width} bits")
    bits = np.unpackbits(packed.reshape(-1).astype(np.uint8), count=count * width).reshape(count, width)
    return torch.from_numpy(bits.astype(np.int64) @ (1 << np.arange(width)[::-1]))  # most significant bit first


def _int8(values: np.ndarray, dequant: dict[str, Any]) -> Int8Tensor:
    return Int8Tensor(
        torch.from_numpy(values.astype(np.int8)),
        float(torch.tensor(float(dequant["scale"]), dtype=torch.float32)),
        int(dequant["zero_point"]),
    )


# Reading without running


def _array(path: Path) -> np.ndarray:
    """The only array of an `.npz` file, which must not hold objects."""
    data = _member(path)
    try:
        return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except ValueError as error:
        raise ReleasedFileError(f"{path} does not hold an array of numbers: {_first_line(error)}") from None


def _object(path: Path) -> Any:
    """The object that an `.npz` file holds as a pickled array without dimensions."""
    data = _member(path)
    try:
        return read_pickled_array(data)
    except RefusedPickleError as error:
        raise ReleasedFileError(f"{path} {error}") from None
    except pickle.UnpicklingError as error:
        raise ReleasedFileError(f"{path} does not hold one object: {_first_line(error)}") from None


def _member(path: Path) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            (info,) = archive.infolist()
            if info.file_size > MAX_MEMBER:
                raise ReleasedFileError(f"{path} claims to hold {info.file_size} bytes")
            return archive.read(info)
    except FileNotFoundError:
        raise ReleasedFileError(f"the folder lacks {path.name}: {path}") from None
    except (OSError, zipfile.BadZipFile, ValueError, EOFError) as error:
        raise ReleasedFileError(f"{path} is not a readable .npz file: {_first_line(error)}") from None


def _numpy_globals() -> list[Any]:
    reconstruct = np.empty(0).__reduce__()[0]
    scalar = np.float32(0).__reduce__()[0]
    numpy_dtypes = [type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "u1", "?")]
    old_names = [(reconstruct, "numpy.core.multiarray._reconstruct"), (scalar, "numpy.core.multiarray.scalar")]
    return [reconstruct, scalar, np.ndarray, np.dtype, *numpy_dtypes, *old_names]


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
