"""The only place that chooses between an operator's torch reference and its native kernel, and loads the kernels.

``make ops`` compiles ``csrc`` into ``_build/perception_ops.so``; without it, and where an operator has no kernel for a
device or type, the reference runs. The environment variable ``PERCEPTION_OPS`` forces one: ``reference`` never loads
the library, ``native`` makes a missing library an error.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from perception.ops import registration

SOURCES = Path(__file__).parent / "csrc"
MODES = ("auto", "native", "reference")
_DEFAULT_FOLDER = Path(__file__).parent / "_build"
LIBRARY, MANIFEST = "perception_ops.so", "perception_ops.json"
_CAPABILITIES = ("DEFAULT", "AVX2", "AVX512")  # each includes those before it

_logger = logging.getLogger("perception.ops")


class Unavailable(RuntimeError):
    """Native kernels were asked for and cannot be had; the message says why."""


def native(name: str, *tensors: Tensor) -> bool:
    """Whether the operator ``name`` is to run its native kernel on these (floating-point) tensors.

    Raises:
        Unavailable: ``PERCEPTION_OPS=native``, and the library could not be loaded.
    """
    if _mode == "reference":
        return False
    if not _devices:
        if _mode == "native":
            raise Unavailable(f"PERCEPTION_OPS=native, but {_reason}")
        return False
    first = tensors[0].device.type
    if first not in _devices:
        return False
    device, dtype = tensors[0].device, tensors[0].dtype
    kernel = registration.kernel(name)
    for tensor in tensors:
        if tensor.device != device or tensor.dtype not in kernel.types:
            return False
        if tensor.dtype != dtype and not kernel.mixed_types:
            return False
    # While a graph is traced the device cannot be asked; the first eager call has done so in all likelihood.
    return first != "cuda" or torch.compiler.is_compiling() or _has_image_for(device.index)


@contextlib.contextmanager
def use(mode: str) -> Iterator[None]:
    """Force ``"native"`` or ``"reference"`` kernels within a block (``"auto"``: the default), for tests and timings."""
    global _mode
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
    before, _mode = _mode, mode
    try:
        yield
    finally:
        _mode = before


def devices() -> frozenset[str]:
    """Device types with native kernels: none, {"cpu"} or {"cpu", "cuda"}."""
    return _devices


def reason() -> str:
    """Why native kernels run or not, in a clause."""
    return _reason


def build_folder() -> Path:
    """Where the compiled library is: ``PERCEPTION_OPS_BUILD``, or beside this file."""
    return Path(os.environ.get("PERCEPTION_OPS_BUILD") or _DEFAULT_FOLDER)


def source_digest() -> str:
    """Changes when any source of the library does."""
    return digest(sorted(path for path in SOURCES.rglob("*") if path.suffix in (".cpp", ".cu", ".h")))


def digest(sources: list[Path]) -> str:
    """Changes when any of these sources does."""
    state = hashlib.sha256()
    for path in sources:
        state.update(path.relative_to(SOURCES).as_posix().encode() + b"\0" + path.read_bytes())
    return state.hexdigest()


def manifest(library: Path, cuda: bool, architectures: str = "") -> dict[str, object]:
    """What is stored beside a library so that it is loaded only where it fits.

    Args:
        library: the file.
        cuda: whether it has CUDA kernels.
        architectures: for which GPUs, as in ``TORCH_CUDA_ARCH_LIST``.
    """
    return {
        "architectures": architectures if cuda else "",
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": cuda,
        "sources": source_digest(),
        "library": hashlib.sha256(library.read_bytes()).hexdigest(),
    }


def covers(architectures: str, capability: tuple[int, int]) -> bool:
    """Whether kernels for ``architectures`` (as in ``TORCH_CUDA_ARCH_LIST``) run on a GPU of a compute capability."""
    for item in split_architectures(architectures):
        number, _, ptx = item.partition("+")
        major, _, minor = number.rstrip("af").partition(".")
        built = (int(major), int(minor or 0))
        same_family = built[0] == capability[0] and built <= capability
        if same_family or (ptx and built <= capability):
            return True
    return False


def split_architectures(architectures: str) -> list[str]:
    """The entries of a list as in ``TORCH_CUDA_ARCH_LIST``."""
    return [item for item in architectures.replace(" ", ";").split(";") if item]


@functools.cache
def _has_image_for(index: int) -> bool:
    """Whether the library's CUDA kernels run on a GPU; one line in the log where they do not."""
    capability = torch.cuda.get_device_capability(index)
    if covers(_architectures, capability):
        return True
    _logger.warning(
        "perception.ops runs its torch references on cuda:%d, because the native library was built for %s and this GPU "
        "has compute capability %d.%d: build it again with `make ops`",
        index,
        _architectures,
        *capability,
    )
    return False


def _read_manifest(library: Path) -> dict | None:
    """What was stored beside a library, if all of it can be read."""
    try:
        stored = json.loads(library.with_name(MANIFEST).read_text())
        return {key: stored[key] for key in ("torch", "capability", "cuda", "architectures", "sources", "library")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _misfit(library: Path, stored: dict | None) -> str:
    """Why a library that is there must not be loaded (a damaged one can kill the process); empty if it may be."""
    if stored is None:
        return "has no readable manifest"
    if stored["torch"] != torch.__version__:
        return f"was built for torch {stored['torch']}, and this is {torch.__version__}"
    here = torch.backends.cpu.get_cpu_capability()
    known = stored["capability"] in _CAPABILITIES and here in _CAPABILITIES
    if stored["capability"] != here and not (
        known and _CAPABILITIES.index(stored["capability"]) < _CAPABILITIES.index(here)
    ):
        return f"was built for a processor with {stored['capability']}, and this one has {here}"
    if stored["sources"] != source_digest():
        return "is older than its sources"
    if stored["library"] != hashlib.sha256(library.read_bytes()).hexdigest():
        return "is damaged"
    return ""


def _load() -> tuple[frozenset[str], str]:
    """Device types that the library serves, and why."""
    global _architectures
    library = build_folder() / LIBRARY
    if not library.is_file():
        return frozenset(), "the library has not been built: run `make ops` or `python -m perception.ops.build`"
    stored = _read_manifest(library)
    problem = _misfit(library, stored)
    if not problem:
        try:
            torch.ops.load_library(library)
            registration.define_in("perception")
            _architectures = str(stored["architectures"])
        except (OSError, RuntimeError, AttributeError) as error:
            problem = f"cannot be loaded ({str(error).splitlines()[0]})"
    if problem:
        sentence = f"the native library {problem}: build it again with `make ops`"
        _logger.warning("perception.ops runs its torch references, because %s", sentence)
        return frozenset(), sentence
    return frozenset({"cpu", "cuda"} if stored["cuda"] else {"cpu"}), f"{library} fits torch {torch.__version__}"


_architectures = ""
_mode = os.environ.get("PERCEPTION_OPS", "").strip().lower() or "auto"
if _mode not in MODES:
    raise ValueError(f"PERCEPTION_OPS must be one of {', '.join(MODES)}, not {_mode!r}")
if _mode == "reference":
    _devices, _reason = frozenset(), "PERCEPTION_OPS=reference"
else:
    _devices, _reason = _load()
