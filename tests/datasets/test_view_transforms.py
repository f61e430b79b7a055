"""The joint augmentation of panoramas and tiles, and what the loader refuses."""

import random

import numpy as np
import pytest
from PIL import Image

from perception.datasets.synthetic.cities import Camera, render_panorama
from perception.datasets.view_transforms import (
    JointFlipTurn,
    LoadViews,
    PackViews,
    ViewPhotometry,
    _grid_holes,
    _scattered_holes,
)
from perception.engine.errors import UserError

SIDE = 96


@pytest.fixture
def city():
    """A map that looks different in every direction."""
    rng = np.random.default_rng(0)
    coarse = rng.random((12, 12, 3)).astype(np.float32)
    return np.asarray(np.kron(coarse, np.ones((8, 8, 1), np.float32)))


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_views_turn_alike(city, flip, turns, monkeypatch):
    """A panorama of the turned map, from the turned place, is the turned panorama."""
    row, column = 40.0, 58.0
    monkeypatch.setattr(random, "choice", lambda options: turns)
    transform = JointFlipTurn(flip, 1.0 if turns else 0.0)
    ground = render_panorama(city, Camera(column, row, ()), 1.0, 64)
    done = transform.transform(dict(ground=ground, satellite=city))
    assert (done["flip"], done["quarter_turns"]) == (bool(flip), turns)

    place = np.array([column - SIDE / 2, row - SIDE / 2])  # right and down of the middle
    if flip:
        place[0] *= -1
    for _ in range(turns):
        place = np.array([place[1], -place[0]])  # counter-clockwise on a picture
    camera = Camera(*(place + SIDE / 2), ())
    expected = render_panorama(np.ascontiguousarray(done["satellite"]), camera, 1.0, 64)
    near = slice(40, 64)  # rows whose ground lies within the map
    assert np.abs(done["ground"][near] - expected[near]).max() < 1e-3


def test_photometry_keeps_sizes_and_follows_the_seed():
    import torch

    results = {name: np.random.default_rng(1).integers(0, 256, size, np.uint8) for name, size in (
        ("ground", (32, 64, 3)),
        ("satellite", (48, 48, 3)),
    )}  # fmt: skip

    def run(seed):
        random.seed(seed)
        torch.manual_seed(seed)
        return ViewPhotometry(1.0, 1.0, 1.0, 1.0).transform(dict(results))

    first, again, other = run(0), run(0), run(1)
    for name, pixels in results.items():
        assert first[name].shape == pixels.shape
        assert first[name].dtype == np.uint8
        assert (first[name] == again[name]).all()
        assert (first[name] != other[name]).any()
        assert (first[name] == 0).all(-1).mean() > 0.03  # holes
    untouched = ViewPhotometry(0.0, 0.0, 0.0, 0.0).transform(dict(results))
    assert all((untouched[name] == pixels).all() for name, pixels in results.items())


def test_holes_are_sample4geos():
    """Of 384 x 768: cells of 76 pixels, half of which are missing; or 10 to 25 holes of 38 to 76 pixels a side."""
    pixels = np.full((384, 768, 3), 255, np.uint8)
    _grid_holes(pixels, 0.5)
    rows, columns = (np.arange(side) % 76 < 38 for side in (384, 768))
    assert ((pixels == 0).all(-1) == rows[:, None] & columns).all()
    shares = []
    for seed in range(40):
        random.seed(seed)
        pixels = np.full((384, 768, 3), 255, np.uint8)
        _scattered_holes(pixels)
        shares.append((pixels == 0).all(-1).mean())
    assert 10 * 38 * 38 / (384 * 768) < np.mean(shares) < 25 * 76 * 76 / (384 * 768)


def test_loading(tmp_path):
    Image.new("RGB", (64, 32), (10, 20, 30)).save(tmp_path / "pano.png")
    Image.new("L", (40, 40), 7).save(tmp_path / "tile.png")
    load = LoadViews((16, 32), (24, 24))
    results = load.transform(dict(ground_path=str(tmp_path / "pano.png"), satellite_path=str(tmp_path / "tile.png")))
    packed = PackViews().transform(results | dict(tile=3, city="Ashford"))
    assert packed["inputs"]["ground"].shape == (3, 16, 32)
    assert packed["inputs"]["ground"][:, 0, 0].tolist() == [10, 20, 30]
    assert packed["inputs"]["satellite"].shape == (3, 24, 24)
    assert (packed["data_samples"].tile, packed["data_samples"].city) == (3, "Ashford")
    alone = PackViews().transform(load.transform(dict(satellite_path=str(tmp_path / "tile.png"))))
    assert list(alone["inputs"]) == ["satellite"]


@pytest.mark.parametrize(
    ("key", "size", "message"),
    [
        ("ground_path", (64, 40), r"a.png: no full panorama: 64 x 40 pixels instead of 2 : 1"),
        ("satellite_path", (64, 40), r"a.png: no square tile: 64 x 40 pixels"),
        ("ground_path", None, r"a.png: not an image"),
    ],
)
def test_files_that_are_not_views(tmp_path, key, size, message):
    if size is None:
        (tmp_path / "a.png").write_text("no picture")
    else:
        Image.new("RGB", size).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=message):
        LoadViews().transform({key: str(tmp_path / "a.png")})
