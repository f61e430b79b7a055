"""Tiles of a gallery in, descriptors out: worker processes read, the model runs in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

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
    """Descriptors of tiles, batch by batch; tiles that cannot be read, or that the model fails on, are refused.

    Args:
        batches: the tiles.
        side: of the model's tiles in pixels.
        workers: processes that read.
        encode: uint8 (B, side, side, 3) RGB to descriptors (B, C).
    """
    tiles = [tile for batch in batches for tile in batch]
    attempts = Attempts(lambda samples: list(encode(np.stack([sample.pixels for sample in samples]))), "tile")
    pool, progress = WorkerPool(workers), Progress(len(tiles), 0, "tile", "tiles")
    try:
        ahead = max(map(len, batches), default=1) + 2 * workers
        samples = pool.imap(partial(read_source, side=side), tiles, ahead, died)
        for batch in batches:
            read = [next(samples)[1] for _ in batch]
            good = [sample for sample in read if isinstance(sample, TileSample)]
            found = iter(attempts.predict(good) if good else ())
            results = []
            for sample in read:
                result = next(found) if isinstance(sample, TileSample) else sample
                if isinstance(sample, TileSample) and not isinstance(result, Refused):
                    result = Encoded(result, sample.sha256, sample.side)
                results.append(result)
            progress.add(len(batch))
            yield results
    finally:
        progress.close()
        pool.close()
