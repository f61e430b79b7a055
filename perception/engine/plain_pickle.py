"""Pickles of arrays, tensors and plain containers, read without running anything else that they name."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from perception.engine.errors import UserError


class RefusedPickleError(UserError):
    """A pickle names something else than arrays, tensors and plain containers."""


class PlainUnpickler(pickle.Unpickler):
    """Rebuilds tensors on the CPU, arrays and plain containers, and refuses every other global."""

    def find_class(self, module: str, name: str) -> Callable:
        """What the pickle names.

        Raises:
            RefusedPickleError: it is something else.
        """
        allowed = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
            ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
            ("torch.storage", "_load_from_bytes"): _storage_on_cpu,
            ("torch", "Size"): torch.Size,
            ("torch", "device"): torch.device,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        for package in ("numpy.core.multiarray", "numpy._core.multiarray"):
            allowed[(package, "_reconstruct")] = np.empty(0).__reduce__()[0]
            allowed[(package, "scalar")] = np.float32(0).__reduce__()[0]
        if (module, name) not in allowed:
            raise RefusedPickleError(f"holds {module}.{name}, which is neither a tensor nor an array: it is not read")
        return allowed[(module, name)]


def read_pickled_array(data: bytes) -> Any:
    """The object that the bytes of an `.npy` file hold as a pickled array without dimensions.

    Raises:
        RefusedPickleError: it holds something else than arrays, tensors and plain containers.
        pickle.UnpicklingError: the bytes are no such file.
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = readers[version](stream)
        if shape != () or not dtype.hasobject:
            raise ValueError(f"an array {shape} of {dtype}")
        content = PlainUnpickler(stream).load()
        return content.item() if isinstance(content, np.ndarray) else content
    except (MemoryError, RefusedPickleError):
        raise
    except Exception as error:  # a damaged pickle fails in every way a byte stream can
        raise pickle.UnpicklingError(str(error) or type(error).__name__) from error


def load_tensors(file: Path | BinaryIO, safe_globals: Sequence[Any] = ()) -> Any:
    """What `torch.save` wrote of tensors and plain containers, on the CPU.

    Args:
        file: a path, or a stream that can be rewound.
        safe_globals: further classes and functions that may be called, as in `torch.serialization.safe_globals`.

    Raises:
        OSError: there is no such file, or it cannot be read.
        pickle.UnpicklingError: it holds something else, or is damaged or cut short; the words are torch's.
    """
    try:
        with torch.serialization.safe_globals(list(safe_globals)):
            return torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged pickle fails in every way a byte stream can
        raise pickle.UnpicklingError(str(error) or type(error).__name__) from error


def _storage_on_cpu(data: bytes) -> Any:
    return load_tensors(io.BytesIO(data))
