"""The greedy batches of pairs."""

import random

import numpy as np
import pytest

from perception.datasets.hard_negatives import hard_batches, nearest_tiles
from perception.geometry.geodesy import great_circle


def ring(count, reach):
    """Neighbours of tiles on a ring, nearest first."""
    steps = [s for k in range(1, reach // 2 + 1) for s in (k, -k)]
    return (np.arange(count)[:, None] + steps) % count


def test_rules():
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 2500, 1600).tolist()
    batches = list(hard_batches(tiles, ring(2500, 128), 64, 64, 128, random.Random(0)))
    pairs = [pair for batch in batches for pair in batch]
    assert len(pairs) == len(set(pairs))
    assert len(pairs) > 0.95 * len(tiles)
    for batch in batches:
        assert len(batch) == 64
        assert len({tiles[pair] for pair in batch}) == 64


def test_neighbours_share_batches():
    tiles = list(range(400))
    near = ring(400, 16)
    batches = list(hard_batches(tiles, near, 8, 8, 16, random.Random(0)))
    shared = np.mean([any(t in near[s] for t in batch if t != s) for batch in batches for s in batch])
    scattered = random.Random(1).sample(tiles, 400)
    chance = np.mean(
        [
            any(t in near[s] for t in scattered[k : k + 8] if t != s)
            for k in range(0, 400, 8)
            for s in scattered[k : k + 8]
        ]
    )
    assert shared > 0.8
    assert chance < 0.4


def test_choices_follow_the_generator():
    tiles = list(range(100))
    first, again, other = (list(hard_batches(tiles, ring(100, 8), 4, 4, 8, random.Random(s))) for s in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.parametrize("batch_size", [3, 50])
def test_one_tile_gives_no_batch(batch_size):
    assert list(hard_batches([0] * 10, np.full((1, 4), -1), batch_size, 2, 4, random.Random(0))) == []


def test_neighbours_by_place_have_pairs():
    """As in Sample4Geo: a tile that nothing is trained on would only take another one's place."""
    rng = np.random.default_rng(0)
    places = np.array([40.0, -74.0]) + rng.uniform(0, 0.01, (30, 2))
    own = [3, 17, 3, 8, 25, 9]
    near = nearest_tiles(places, own, 3)
    assert near.shape == (30, 3)
    for tile in range(30):
        if tile in own:
            others = sorted(set(own) - {tile}, key=lambda n: float(great_circle(places[tile], places[n])))
            assert near[tile].tolist() == others[:3]
        else:
            assert (near[tile] == -1).all()
    assert nearest_tiles(places, own, 50).shape == (30, 4)
