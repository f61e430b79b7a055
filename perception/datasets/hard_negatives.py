"""Batches of pairs whose tiles are hard to tell apart, no tile twice (as Sample4Geo draws them)."""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence

import numpy as np
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import Sampler

from .resumable_epochs import ResumableEpochBatchSampler

_HOPELESS = 1024
"""Pairs in a row that could not be used, after which an epoch ends."""


def hard_batches(
    tiles: Sequence[int], near: np.ndarray, batch_size: int, select: int, reach: int, generator: random.Random
) -> Iterator[list[int]]:
    """Fills batches greedily: a pair from a shuffled pool, then pairs whose tiles are near its own.

    Args:
        tiles: tile of each pair.
        near: (T, N) for each tile those that are hard to tell from it, hardest first; -1 stands for none.
        batch_size: pairs of a batch, of as many tiles. The last, incomplete batch is dropped.
        select: how many neighbours of a pair are tried: the first half always, the others drawn from the rest.
        reach: how many of the neighbours are looked at.
        generator: of all random choices.

    Yields:
        numbers of pairs, each at most once.
    """
    pool = deque(generator.sample(range(len(tiles)), len(tiles)))
    unused: dict[int, list[int]] = defaultdict(list)
    for pair, tile in enumerate(tiles):
        unused[tile].append(pair)
    used = [False] * len(tiles)
    taken: dict[int, set[int]] = defaultdict(set)  # neighbours that a tile has brought already
    batch: list[int] = []
    batch_tiles: set[int] = set()
    failures = 0

    def add(pair: int) -> None:
        used[pair] = True
        unused[tiles[pair]].remove(pair)
        batch.append(pair)
        batch_tiles.add(tiles[pair])

    while pool and failures < _HOPELESS:
        pair = pool.popleft()
        tile = tiles[pair]
        if used[pair]:
            failures += 1
            continue
        if tile in batch_tiles:
            pool.append(pair)
            failures += 1
            continue
        add(pair)
        failures = 0
        listed = [int(n) for n in near[tile] if n >= 0 and int(n) not in taken[tile]][:reach]
        first, rest = listed[: select // 2], listed[select // 2 :]
        for neighbour in first + generator.sample(rest, min(len(rest), select - select // 2)):
            if len(batch) == batch_size:
                break
            if neighbour not in batch_tiles and unused[neighbour]:
                add(generator.choice(unused[neighbour]))
                taken[tile].add(neighbour)
        if len(batch) == batch_size:
            yield batch
            batch, batch_tiles = [], set()


def nearest_tiles(coordinates: np.ndarray, own: Sequence[int], reach: int) -> np.ndarray:
    """For each tile that pairs have those that are nearest to it, of the tiles that pairs have.

    Args:
        coordinates: (T, 2) latitudes and longitudes of all tiles in degrees.
        own: tile of each pair.
        reach: neighbours of each.

    Returns:
        (T, up to reach) tile numbers, nearest first; -1 for tiles without a pair.
    """
    from perception.geometry.geodesy import nearest_places

    numbers = np.unique(own)
    near = nearest_places(coordinates[numbers], reach)
    lists = np.full((len(coordinates), near.shape[1]), -1, np.int64)
    lists[numbers] = numbers[near]
    return lists


@DATA_SAMPLERS.register_module()
class HardNegativeBatchSampler(ResumableEpochBatchSampler):
    """:func:`hard_batches` over a :class:`~perception.datasets.geolocalization.VigorPairs`, anew in every epoch.

    With several processes all draw the same batches and each takes its share of every one.

    Args:
        sampler: MMEngine's ``DefaultSampler``, for seed, epoch and rank.
        batch_size: pairs of a batch in each process.
        select, reach: see :func:`hard_batches`.
    """

    def __init__(self, sampler: Sampler, batch_size: int, select: int = 64, reach: int = 128):
        super().__init__(sampler, batch_size)
        dataset = sampler.dataset
        dataset.full_init()
        self.select, self.reach = select, reach
        self._tiles = [pair.tiles[0] for pair in dataset.vigor.pairs]
        self.neighbours = nearest_tiles(dataset.vigor.coordinates(), self._tiles, reach)
        self._planned: tuple[int, list[list[int]]] | None = None

    def set_neighbours(self, neighbours: np.ndarray) -> None:
        """Replaces the lists (T, N) of tiles that are hard to tell apart; in use from the next epoch on."""
        self.neighbours = neighbours
        self._planned = None

    def __len__(self) -> int:
        return len(self._plan())

    def _batches(self) -> Iterator[list[int]]:
        rank = self.sampler.rank
        for batch in self._plan():
            yield batch[rank * self.batch_size : (rank + 1) * self.batch_size]

    def _plan(self) -> list[list[int]]:
        epoch = self.sampler.epoch
        if self._planned is None or self._planned[0] != epoch:
            generator = random.Random(f"{self.sampler.seed}/{epoch}")
            size = self.batch_size * self.sampler.world_size
            batches = list(hard_batches(self._tiles, self.neighbours, size, self.select, self.reach, generator))
            self._planned = (epoch, batches)
        return self._planned[1]
