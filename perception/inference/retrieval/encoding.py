"""Tiles of a gallery in, descriptors out: worker processes read, the model runs in batches.

Worker processes import this module, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from perception.datasets.images import UnreadableImageError
from perception.datasets.views import read_tile, resize
from perception.inference.attempts import Attempts
from perception.inference.pool import WorkerPool
from perception.inference.progress import Progress
from perception.inference.reading import Refused
from perception.inference.retrieval.bank import Encoded, file_digest
from perception.inference.scan import Source


@dataclass(frozen=True)
class TileSample:
    """A tile at the model's size, uint8 (side, side, 3) RGB; the digest of its file, and the file's own side."""

    pixels: np.ndarray
    sha256: str
    side: int


def load_tile(path: Path, side: int) -> TileSample:
    """Reads a tile for a model that takes `side` x `side` pixels.

    Raises:
        UnreadableImageError: it cannot be read, or is not square.
    """
    pixels = read_tile(path)
    return TileSample(resize(pixels, (side, side)), file_digest(path.read_bytes()), len(pixels))


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
        samples = pool.imap(partial(_read, side=side), tiles, ahead, _died)
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


def _read(source: Source, side: int) -> TileSample | Refused:
    try:
        return load_tile(source.path, side)
    except UnreadableImageError as error:
        return Refused(str(error))
    except OSError as error:
        return Refused(error.strerror or str(error))


def _died(source: Source) -> Refused:
    return Refused("reading it kills the process: it is damaged, or needs more memory than there is")
