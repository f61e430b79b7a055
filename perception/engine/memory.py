"""How this process gets memory from the system."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

# Numbers of glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
LARGEST_INT = 2**31 - 1
TOP_PAD = 256 * 2**20

Item = TypeVar("Item")


def keep_freed_memory() -> bool:
    """Make this process reuse the memory that tensors free, instead of returning it to the system.

    By default glibc maps every large block anew and unmaps it when it is freed, so that each tensor of more than a few
    megabytes pays for page faults: on a CPU they cost more than most element-wise operations. The price is that the
    process keeps the most memory it ever needed.

    Returns:
        Whether it took effect: not without glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # One arena, since the autograd thread would otherwise allocate from one that cannot hold large blocks.
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, LARGEST_INT), (M_TOP_PAD, TOP_PAD), (M_ARENA_MAX, 1))
    return sum(mallopt(name, value) for name, value in settings) == len(settings)


def return_freed_memory() -> bool:
    """Give the system back what was freed between the blocks that are in use.

    glibc gives back what lies above the last block alone. A process that keeps a small result of each of many steps
    pins the freed blocks of these steps below it, and seems to need more and more memory.

    Returns:
        Whether anything was given back: never without glibc.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim is not None and bool(trim(0))


def returning_freed_memory(steps: Iterable[Item]) -> Iterator[Item]:
    """The same steps; after each, freed memory is given back (:func:`return_freed_memory`).

    It costs some milliseconds, and some more where pages that were given back are needed once more.
    """
    for step in steps:
        yield step
        return_freed_memory()


def peak_of(call: Callable[[], object]) -> float:
    """MiB of memory that a call takes at most beyond what this process holds before it; Linux alone."""
    before = _held("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    call()
    return _held("VmHWM") - before


def _held(name: str) -> float:
    """MiB that the kernel reports under a name."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 2**10
