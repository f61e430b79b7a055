"""Batches and augmentations that a resumed run repeats exactly.

MMEngine restores the order of images on resume but not the random state of augmentations, which lives in worker
processes. Here every drawn sample carries a seed that follows from the run's seed, the rank and the sample's place in
the stream; :class:`SeedAugmentation` applies it before the other transforms. So augmentations depend neither on where
a run was interrupted nor on the number of workers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.datasets import AspectRatioBatchSampler
from mmdet.registry import DATA_SAMPLERS, TRANSFORMS
from torch.utils.data import BatchSampler, Sampler


class SeededIndex(int):
    """An index into a data set with the seed for this draw's augmentations.

    Sets that repeat or join others find the place in these by a remainder or a difference, which keep the seed.
    """

    seed: int

    def __new__(cls, index: int, seed: int) -> SeededIndex:
        self = super().__new__(cls, index)
        self.seed = seed
        return self

    def __mod__(self, other: int) -> SeededIndex:
        return SeededIndex(int(self) % other, self.seed)

    def __sub__(self, other: int) -> SeededIndex:
        return SeededIndex(int(self) - other, self.seed)

    def __reduce__(self) -> tuple:
        return SeededIndex, (int(self), self.seed)


class _Resumable(BatchSampler):
    """What a batch sampler over MMEngine's ``InfiniteSampler`` draws, from any batch on and with a seed per sample."""

    _skipped = 0

    def skip(self, num_batches: int) -> None:
        """Lets the next iteration start after ``num_batches`` batches, without loading their images."""
        self._skipped = num_batches

    def __iter__(self) -> Iterator[list[SeededIndex]]:
        position = 0
        for number, batch in enumerate(super().__iter__()):
            if number >= self._skipped:
                yield [SeededIndex(index, self._seed(position + i)) for i, index in enumerate(batch)]
            position += len(batch)

    def _seed(self, position: int) -> int:
        sequence = np.random.SeedSequence([self.sampler.seed, self.sampler.rank, position])
        return int(sequence.generate_state(1)[0])


@DATA_SAMPLERS.register_module()
class ResumableBatchSampler(_Resumable, AspectRatioBatchSampler):
    """Batches of portrait or of landscape images over MMEngine's ``InfiniteSampler``, with a seed per sample."""


@DATA_SAMPLERS.register_module()
class ResumableMixedBatchSampler(_Resumable):
    """The same without regard to orientation, for images that are cropped to one size.

    Args:
        sampler: MMEngine's ``InfiniteSampler``.
        batch_size: images of a batch.
    """

    def __init__(self, sampler: Sampler, batch_size: int):
        super().__init__(sampler, batch_size, drop_last=True)


@TRANSFORMS.register_module()
class SeedAugmentation(BaseTransform):
    """Seeds Python's, NumPy's and torch's generators for the transforms that follow.

    Belongs at the start of a training pipeline. Without a seeded index (another sampler, or an image drawn in place of
    one whose boxes were all lost) nothing changes.
    """

    def transform(self, results: dict) -> dict:
        """Reads the seed that ``sample_idx`` carries."""
        index = results.get("sample_idx")
        if isinstance(index, SeededIndex):
            random.seed(index.seed)
            np.random.seed(index.seed)  # noqa: NPY002 (the generator that mmcv's transforms draw from)
            torch.manual_seed(index.seed)
        return results
