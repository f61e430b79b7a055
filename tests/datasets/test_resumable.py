"""Samples and seeds that do not depend on where a run was interrupted."""

import copy
import itertools
import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import InfiniteSampler

from perception.datasets.resumable import (
    ResumableBatchSampler,
    ResumableMixedBatchSampler,
    SeedAugmentation,
    SeededIndex,
)

SIZES = [(100, 50), (50, 100), (80, 80), (60, 90), (90, 60), (70, 70), (40, 90)]


class Pictures:
    def __len__(self):
        return len(SIZES)

    def get_data_info(self, index):
        return dict(zip(("width", "height"), SIZES[index]))


def batches(skip: int = 0, count: int = 12, seed: int = 5, kind=ResumableBatchSampler):
    sampler = kind(InfiniteSampler(Pictures(), seed=seed), batch_size=2)
    sampler.skip(skip)
    return list(itertools.islice(sampler, count))


def seeds(drawn):
    return [[index.seed for index in batch] for batch in drawn]


@pytest.mark.parametrize("kind", [ResumableBatchSampler, ResumableMixedBatchSampler])
def test_skipping_continues_the_same_stream(kind):
    whole, rest = batches(kind=kind), batches(skip=5, count=7, kind=kind)
    assert rest == whole[5:]
    assert seeds(rest) == seeds(whole)[5:]


def test_every_draw_has_its_own_seed():
    drawn = list(itertools.chain.from_iterable(seeds(batches())))
    assert len(set(drawn)) == len(drawn)
    assert seeds(batches()) != seeds(batches(seed=6))


def test_batches_hold_one_orientation():
    for batch in batches():
        assert len({SIZES[index][0] < SIZES[index][1] for index in batch}) == 1


def test_mixed_batches_follow_the_sampler():
    order = list(itertools.islice(InfiniteSampler(Pictures(), seed=5), 24))
    mixed = batches(kind=ResumableMixedBatchSampler)
    assert list(itertools.chain.from_iterable(mixed)) == order
    assert any(len({SIZES[index][0] < SIZES[index][1] for index in batch}) == 2 for batch in mixed)


def test_augmentation_repeats_for_the_same_draw():
    index = pickle.loads(pickle.dumps(SeededIndex(3, 77)))  # as it travels to a worker
    assert index == 3
    draws = []
    for results in (dict(sample_idx=index), dict(sample_idx=copy.copy(index))):
        assert SeedAugmentation()(results) is results
        draws.append((random.random(), np.random.rand(), torch.rand(()).item()))
    assert draws[0] == draws[1]
    SeedAugmentation()(dict(sample_idx=SeededIndex(3, 78)))
    assert random.random() != draws[0][0]
    state = np.random.get_state()[1].copy()
    SeedAugmentation()(dict(sample_idx=3))  # a plain index changes nothing
    assert np.array_equal(np.random.get_state()[1], state)
