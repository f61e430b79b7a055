"""What an actor of an engine does for a gallery: descriptors of the tiles that it is handed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch

from perception.inference.engines.engine import Recipe, usable_device
from perception.inference.engines.member import Event, Finished, Ran, Shard
from perception.inference.pool import WorkerPool
from perception.inference.retrieval.encoding import encoded
from perception.inference.scan import Source

Encode = Callable[[np.ndarray], np.ndarray]


class Encodes(Protocol):
    """A kind of folder that has a gallery."""

    def encoder(self, cfg: Any, checkpoint: Any, device: torch.device) -> tuple[Any, Encode]:
        """A model, and what encodes tiles with it: uint8 (B, side, side, 3) RGB to descriptors (B, C)."""


@dataclass(frozen=True)
class GalleryRun:
    """Makes workers.

    Attributes:
        recipe: of the run, whose kind :class:`Encodes`.
        side: of the model's tiles in pixels.
        batch_size: tiles at a time.
    """

    recipe: Recipe
    side: int
    batch_size: int

    def __call__(self, shared: None) -> GalleryWorker:
        self.recipe.settle()
        cfg, kind = self.recipe.load()
        device = usable_device(self.recipe.device)
        _, encode = cast(Encodes, kind).encoder(cfg, self.recipe.checkpoint, device)
        return GalleryWorker(encode, self.side, self.recipe.workers, self.batch_size)


class GalleryWorker:
    """One model.

    Args:
        encode: as in :class:`Encodes`.
        side: of the model's tiles in pixels.
        workers: processes that read.
        batch_size: tiles at a time.
    """

    remembers = False

    def __init__(self, encode: Encode, side: int, workers: int, batch_size: int) -> None:
        self._encode, self._side, self._ahead = encode, side, batch_size + 2 * workers
        self._pool = WorkerPool(workers)

    def events(self, shards: Iterator[Shard], tell: Callable[[Event], None]) -> Iterator[Event]:
        taken: list[Shard] = []

        def batches() -> Iterator[Sequence[Source]]:
            for shard in shards:
                taken.append(shard)
                yield shard.sources

        for found in encoded(batches(), self._side, self._pool, self._ahead, self._encode):
            shard = taken.pop(0)
            yield from (Ran(shard.number, place, result) for place, result in enumerate(found))
            yield Finished(shard.number)
