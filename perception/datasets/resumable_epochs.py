"""The counterpart of :mod:`perception.datasets.resumable` for runs that count epochs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from mmdet.datasets import AspectRatioBatchSampler
from mmdet.registry import DATA_SAMPLERS
from torch.utils.data import BatchSampler, Sampler

from .resumable import SeededIndex


@DATA_SAMPLERS.register_module()
class ResumableEpochBatchSampler(BatchSampler):
    """Batches over MMEngine's ``DefaultSampler``, with a seed for every sample of every epoch.

    Args:
        sampler: MMEngine's ``DefaultSampler``.
        batch_size: images of a batch; the last one may be smaller.
    """

    _skipped = 0

    def __init__(self, sampler: Sampler, batch_size: int):
        super().__init__(sampler, batch_size, drop_last=False)

    def skip(self, num_batches: int) -> None:
        """Lets the next epoch start after ``num_batches`` batches, without loading their images."""
        self._skipped = num_batches

    def __iter__(self) -> Iterator[list[SeededIndex]]:
        skipped, self._skipped = self._skipped, 0
        for number, batch in enumerate(self._batches()):
            if number >= skipped:
                first = number * self.batch_size
                yield [SeededIndex(index, self._seed(first + i)) for i, index in enumerate(batch)]

    def _batches(self) -> Iterator[list[int]]:
        """All batches of an epoch."""
        return super().__iter__()

    def _seed(self, position: int) -> int:
        sampler = self.sampler
        sequence = np.random.SeedSequence([sampler.seed, sampler.rank, sampler.epoch, position])
        return int(sequence.generate_state(1)[0])


@DATA_SAMPLERS.register_module()
class ResumableEpochAspectRatioBatchSampler(ResumableEpochBatchSampler, AspectRatioBatchSampler):
    """The same with portrait and landscape images in batches of their own."""
