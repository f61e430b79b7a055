"""The grid of tiles against the released code's lists."""

from pathlib import Path

import pytest
import torch

from perception.radiance.tiles import Tile, tile_grid

RECORDED = torch.load(Path(__file__).parents[1] / "data/reference/nerf_4k/patch_sampling.pt", weights_only=True)


@pytest.mark.parametrize("case", RECORDED["outputs"]["patches"])
def test_tiles_are_those_of_the_released_code(case):
    size, factor = case.split("_x")
    height, width = map(int, size.split("x"))
    recorded = RECORDED["outputs"]["patches"][case]
    tiles = tile_grid(height, width, RECORDED["meta"]["N_rand"] // RECORDED["meta"]["N_patch"])
    assert [list(tile) for tile in tiles] == recorded["lr"].tolist()
    assert [list(tile.scaled(int(factor))) for tile in tiles] == recorded["hr"].tolist()


@pytest.mark.parametrize(("height", "width", "side"), [(7, 9, 4), (8, 12, 4), (8, 9, 4), (3, 2, 4), (1, 1, 1)])
def test_tiles_cover_each_pixel_once(height, width, side):
    """Also where a side leaves no remainder, or is longer than the image."""
    seen = torch.zeros(height, width, dtype=torch.int64)
    for row, column, high, wide in tile_grid(height, width, side):
        assert 0 < high <= side
        assert 0 < wide <= side
        seen[row : row + high, column : column + wide] += 1
    assert bool((seen == 1).all())


def test_tiles_need_pixels():
    assert Tile(1, 2, 3, 4).scaled(2) == (2, 4, 6, 8)
    with pytest.raises(ValueError, match="at least 1 pixel"):
        tile_grid(4, 4, 0)
