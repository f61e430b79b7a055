"""Epochs that continue where they were interrupted, and never repeat their augmentations."""

import itertools

from mmengine.dataset import DefaultSampler

from perception.datasets.resumable_epochs import ResumableEpochBatchSampler


def epoch(number, skip=0, seed=3):
    sampler = ResumableEpochBatchSampler(DefaultSampler(range(7), seed=seed), batch_size=2)
    sampler.sampler.set_epoch(number)
    sampler.skip(skip)
    first = [[(int(index), index.seed) for index in batch] for batch in sampler]
    again = [[(int(index), index.seed) for index in batch] for batch in sampler]
    assert len(again) == len(sampler) == 4  # skipping is for one epoch
    return first


def test_the_rest_of_an_epoch_is_the_same():
    whole = epoch(1)
    assert sorted(index for batch in whole for index, _ in batch) == list(range(7))
    assert [len(batch) for batch in whole] == [2, 2, 2, 1]
    assert epoch(1, skip=3) == whole[3:]
    assert epoch(1, skip=0) == whole


def test_every_epoch_and_run_has_its_own_seeds():
    drawn = [seed for e in (0, 1, 2) for batch in epoch(e) for _, seed in batch]
    drawn += [seed for batch in epoch(0, seed=4) for _, seed in batch]
    assert len(set(drawn)) == len(drawn) == 28
    orders = [list(itertools.chain(*[[index for index, _ in batch] for batch in epoch(e)])) for e in range(4)]
    assert len({tuple(order) for order in orders}) > 1
