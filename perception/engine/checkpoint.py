"""Checkpoint files, read without running code from them.

A PyTorch checkpoint is a pickle, and a pickle may call any function while it is read. `load_checkpoint_file` lets
through only tensors, plain containers and the few harmless classes that MMEngine itself writes. MMEngine's own local
loader starts the same way but falls back to unrestricted unpickling when that fails; `install` closes this door for
everything that goes through `CheckpointLoader` (`Runner.load_checkpoint`, `Runner.resume`, `init_cfg`).
"""

from __future__ import annotations

import argparse
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from .errors import UserError

MapLocation = str | torch.device | Callable | dict | None


class CheckpointError(UserError):
    """A checkpoint that cannot be used; the message is one sentence for the user."""


def checkpoint_file(path: str | Path) -> Path:
    """The path of a file that may be a checkpoint, with `~` resolved.

    Raises:
        CheckpointError: there is no such file, or nothing in it.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise CheckpointError(f"checkpoint {path} is a folder; name the .pth file in it")
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist")
    if path.stat().st_size == 0:
        raise CheckpointError(f"checkpoint {path} is empty (0 bytes); was its writing interrupted?")
    return path


def load_checkpoint_file(path: str | Path, map_location: MapLocation = "cpu") -> dict[str, Any]:
    """Reads a checkpoint file without executing anything in it.

    Args:
        path: a local file written by `torch.save`.
        map_location: where tensors go, as in `torch.load`.

    Returns:
        The dictionary that was saved: MMEngine's `{"state_dict": ..., "meta": ...}` or a bare state dict.

    Raises:
        CheckpointError: the file is missing, empty, truncated, not a checkpoint, or holds objects beyond weights.
    """
    path = checkpoint_file(path)
    try:
        with torch.serialization.safe_globals(_safe_globals()):
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except PermissionError as error:
        raise CheckpointError(f"checkpoint {path} may not be read by this user ({error.strerror})") from error
    except Exception as error:  # a damaged pickle fails in every way a byte stream can
        raise CheckpointError(_reason(path, error)) from error
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(f"checkpoint {path} holds a {type(checkpoint).__name__}, not a dictionary of weights")
    return checkpoint


def state_dict_of(checkpoint: Mapping[str, Any]) -> OrderedDict[str, torch.Tensor]:
    """The weights in a loaded checkpoint, without the `module.` prefix of (distributed) data parallel training."""
    saved = checkpoint.get("state_dict", checkpoint)
    weights = OrderedDict(
        (key.removeprefix("module."), value) for key, value in saved.items() if isinstance(value, torch.Tensor)
    )
    # Modules read their version from here when they load weights of an older layout.
    weights._metadata = getattr(saved, "_metadata", OrderedDict())
    return weights


def load_weights(model: torch.nn.Module, checkpoint: Mapping[str, Any], source: str | Path) -> list[str]:
    """Loads a checkpoint's weights into `model`, all of them or none.

    Args:
        model: the model, built from its config.
        checkpoint: what `load_checkpoint_file` returned.
        source: the file's name, for the message.

    Returns:
        The keys that the checkpoint holds and the model has no place for (auxiliary training heads, for one).

    Raises:
        CheckpointError: a weight that the model needs is missing or has another shape.
    """
    weights = state_dict_of(checkpoint)
    own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
        reshaped = []
    except RuntimeError as error:
        # `strict=False` still raises on shapes, and reports nothing else then.
        reshaped = re.findall(r"size mismatch for (\S+):", str(error))
        if not reshaped:
            raise
        missing = [key for key in own if key not in weights]
        unexpected = [key for key in weights if key not in own]
    # Counters of batch-norm steps are absent from older files and do not change what a model predicts.
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or reshaped:
        counts = [
            f"{len(keys)} {what} (first: {keys[0]})"
            for keys, what in (
                (missing, "missing"),
                (reshaped, "of another shape"),
                (unexpected, "unknown to the model"),
            )
            if keys
        ]
        raise CheckpointError(
            f"checkpoint {source} is not of this model: of its {len(own)} weights, {', '.join(counts)}; "
            "use the config that the checkpoint was trained with"
        )
    return list(unexpected)


def save_checkpoint_file(checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Writes a checkpoint under a temporary name and renames it, creating the folder if need be."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    torch.save(checkpoint, unfinished)
    unfinished.replace(path)


def load_from_local(filename: str, map_location: MapLocation = None) -> dict[str, Any]:
    """`load_checkpoint_file` with the signature (and the name, which it logs) of MMEngine's local loader."""
    return load_checkpoint_file(filename, map_location)


def install() -> None:
    """Makes MMEngine read local checkpoints through `load_checkpoint_file`. Calling it again changes nothing."""
    CheckpointLoader.register_scheme(prefixes="", loader=load_from_local, force=True)


class _Callback:
    """Stands for a class that is only named."""


def _safe_globals() -> list:
    """What may be named in a checkpoint beyond torch's own list: data, and constructors without side effects."""
    allowed: list = [
        HistoryBuffer,
        ConfigDict,
        # DETR and its relatives save their command line beside the weights; a Namespace only holds attributes.
        argparse.Namespace,
        # Lightning saves settings as they were given, and names a callback's class as a key; neither is needed as such.
        (OrderedDict, "easydict.EasyDict"),
        (OrderedDict, "pytorch_lightning.utilities.parsing.AttributeDict"),
        (_Callback, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"),
        (_statistics_method, "builtins.getattr"),
        (_no_bytes, "builtins.bytes"),
        slice,
        np.ndarray,
        np.dtype,
    ]
    for name in ("_reconstruct", "scalar"):
        function = getattr(np._core.multiarray, name)
        allowed += [(function, f"{module}.multiarray.{name}") for module in ("numpy.core", "numpy._core")]
    # Every dtype is its own class; the object dtype stays out.
    allowed += sorted({type(np.dtype(code)) for code in "?bhilqBHILQefdgFDGSU"}, key=lambda kind: kind.__name__)
    return allowed


def _statistics_method(owner: object, name: str) -> Callable:
    """Stands for `getattr`, by which pickle names the methods that a `HistoryBuffer` carries, and for nothing else."""
    if owner is not HistoryBuffer or name not in ("min", "max", "mean", "current"):
        raise pickle.UnpicklingError(
            f"Unsupported global: GLOBAL getattr({getattr(owner, '__name__', 'object')},{name!r})"
        )
    return getattr(owner, name)


def _no_bytes(*args: object) -> bytes:
    """Stands for `bytes`, by which pickle makes the content of an empty NumPy array, and no others."""
    if args:
        raise pickle.UnpicklingError("Unsupported global: GLOBAL bytes with arguments")
    return b""


def _reason(path: Path, error: Exception) -> str:
    """One sentence on why torch could not read a file."""
    text = str(error)
    blocked = re.search(r"GLOBAL (\S+)", text)
    if blocked:
        return (
            f"checkpoint {path} is refused: it holds {blocked.group(1)}, and reading that could run code; "
            "save it again with weights only, from the program that wrote it"
        )
    with path.open("rb") as file:
        is_archive = file.read(4) == b"PK\x03\x04"
    if is_archive:
        return f"checkpoint {path} is damaged or truncated (its archive cannot be read)"
    return f"checkpoint {path} cannot be read as a PyTorch checkpoint ({type(error).__name__})"
