"""Tiles of a gallery in, descriptors out: worker processes read, the model runs in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import chain, islice

import numpy as np

from perception.inference.attempts import Attempts
from perception.inference.pool import WorkerPool
from perception.inference.progress import Progress
from perception.inference.reading import Refused
from perception.inference.retrieval.bank import Encoded
from perception.inference.retrieval.tile_reader import TileSample, died, read_source
from perception.inference.scan import Source


def encode_gallery(
    batches: Sequence[Sequence[Source]],
    side: int,
    workers: int,
    encode: Callable[[np.ndarray], np.ndarray],
) -> Iterator[Sequence[Encoded | Refused]]:
    """Descriptors of tiles, batch by batch, as `encoded` yields them; shows how far it is."""
    with closing(WorkerPool(workers)) as pool:
        ahead = max(map(len, batches), default=1) + 2 * workers
        yield from shown(encoded(batches, side, pool, ahead, encode), batches)


def shown(
    results: Iterable[Sequence[Encoded | Refused]], batches: Sequence[Sequence[Source]]
) -> Iterator[Sequence[Encoded | Refused]]:
    """The results of batches, as they are, while it is shown how many there are."""
    with closing(Progress(sum(map(len, batches)), 0, "tile", "tiles")) as progress:
        for found in results:
            progress.add(len(found))
            yield found


def encoded(
    batches: Iterable[Sequence[Source]],
    side: int,
    pool: WorkerPool,
    ahead: int,
    encode: Callable[[np.ndarray], np.ndarray],
) -> Iterator[Sequence[Encoded | Refused]]:
    """Descriptors of tiles, batch by batch; tiles that cannot be read, or that the model fails on, are refused.

    Args:
        batches: the tiles, asked for as they are needed.
        side: of the model's tiles in pixels.
        pool: reads.
        ahead: tiles that may be read in advance.
        encode: uint8 (B, side, side, 3) RGB to descriptors (B, C).
    """
    sizes: deque[int] = deque()

    def tiles() -> Iterator[Source]:
        for batch in batches:
            sizes.append(len(batch))
            yield from batch

    attempts = Attempts(lambda samples: list(encode(np.stack([sample.pixels for sample in samples]))), "tile")
    samples = pool.imap(partial(read_source, side=side), tiles(), ahead, died)
    for first in samples:
        read = [sample for _, sample in chain([first], islice(samples, sizes.popleft() - 1))]
        good = [sample for sample in read if isinstance(sample, TileSample)]
        found = iter(attempts.predict(good) if good else ())
        results = []
        for sample in read:
            result = next(found) if isinstance(sample, TileSample) else sample
            if isinstance(sample, TileSample) and not isinstance(result, Refused):
                result = Encoded(result, sample.sha256, sample.side)
            results.append(result)
        yield results
