"""States of predictors, kept while a sequence or a huge source is not done so that an interrupted run can go on."""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import time
from collections.abc import Callable
from typing import Any

import torch

from perception.engine.plain_pickle import load_tensors
from perception.inference.writing import Files

FOLDER = "state"

# Keeping states takes at most this share of the time.
_SHARE = 0.05


class KeptState:
    """The last state of one sequence, or of one source, that is on the disk, `state/HASH.pt`, and the one that will be
    next.

    Args:
        files: where to.
        sequence: its name.
    """

    def __init__(self, files: Files, sequence: str) -> None:
        self._files = files
        self._name = f"{FOLDER}/{hashlib.sha256(sequence.encode(errors='surrogateescape')).hexdigest()[:16]}.pt"
        self._offered: tuple[int, dict[str, Any]] | None = None
        self._cost, self._free_since = 0.0, float("-inf")

    def exists(self) -> bool:
        """Whether there is one on the disk."""
        return self._files.exists(self._name)

    def load(self) -> tuple[str | None, Any]:
        """The name of the source after which the state on the disk was taken, and the state; or None and None."""
        try:
            kept = load_tensors(self._files.root / self._name)
            return kept["after"], kept["state"]
        except (OSError, KeyError, TypeError, IndexError, pickle.UnpicklingError):
            return None, None

    def offer(self, number: int, after: str, state: Callable[[], Any]) -> None:
        """Takes the state after a source, or after a part of one, if it is time for one.

        Args:
            number: of the source in its sequence, or of the part in its source, from 1.
            after: the source's name.
            state: returns the state, or None if it cannot be kept.
        """
        started = time.perf_counter()
        if self._offered is not None or (started - self._free_since) * _SHARE < self._cost:
            return
        taken = state()
        if taken is not None:
            self._offered = number, {"after": after, "state": taken}
            self._cost = time.perf_counter() - started

    def save(self, written: int) -> None:
        """Writes the state that was taken, once the lines of that many sources are written: not before its own is."""
        if self._offered is None or written < self._offered[0]:
            return
        started = time.perf_counter()
        with self._files.replacing(self._name) as file:
            torch.save(self._offered[1], file)
        self._offered, self._free_since = None, time.perf_counter()
        self._cost += self._free_since - started

    def remove(self) -> None:
        """Forgets the state of a sequence that is done."""
        self._files.remove(self._name)
        with contextlib.suppress(OSError):  # other sequences' states
            (self._files.root / FOLDER).rmdir()


def remove_states(files: Files) -> None:
    """Removes all states that a run has kept."""
    for path in (files.root / FOLDER).glob("*.pt"):
        path.unlink()
    with contextlib.suppress(OSError):  # there are none, or other files beside them
        (files.root / FOLDER).rmdir()
