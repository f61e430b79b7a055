"""Built-in cities, and the reading of VIGOR's lists."""

import cv2
import numpy as np
import pytest

from perception.datasets.synthetic import cities
from perception.datasets.vigor import read_vigor
from perception.engine.errors import UserError
from perception.geometry.geodesy import great_circle

PARAMS = cities.Params(num_cities=2, tiles_per_side=3, train_cameras=6, test_cameras=2, tile_pixels=64)
NAMES = ("Ashford", "Birchwood")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    out = tmp_path_factory.mktemp("cities") / "set"
    summary = cities.write(out, PARAMS)
    assert summary.counts == {name: {"tiles": 9, "panoramas": 8} for name in NAMES}
    return out


def copy(root, tmp_path):
    """The lists alone: reading them opens no picture."""
    target = tmp_path / "splits_new"
    for path in (root / "splits_new").rglob("*.txt"):
        (target / path.parent.name).mkdir(parents=True, exist_ok=True)
        (target / path.parent.name / path.name).write_text(path.read_text())
    return tmp_path


def test_same_parameters_give_the_same_files(root, tmp_path):
    again = cities.write(tmp_path / "again", PARAMS).out
    files = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((root / path).read_bytes() == (again / path).read_bytes() for path in files)


def test_lists(root):
    train, test = (read_vigor(root, split, cities=NAMES) for split in ("train", "test"))
    assert (len(train.tiles), len(train.pairs), len(test.pairs)) == (18, 12, 4)
    assert all(tile.path.is_file() for tile in train.tiles)
    for pair in train.pairs:
        assert pair.panorama.is_file()
        assert len(set(pair.tiles)) == 4
        assert np.abs(pair.offsets[0]).max() <= 160  # the central quarter
        assert (np.abs(pair.offsets[1:]).max(1) >= 160).all()
        assert (np.abs(pair.offsets) <= 480).all()
        # Every tile and its offset name the same place on Earth, and it is the panorama's.
        latitude, longitude = (float(part) for part in pair.panorama.name.split(",")[1:3])
        for tile, (row, column) in zip(pair.tiles, pair.offsets):
            centre = train.tiles[tile]
            metres = cities.METRES_PER_PIXEL / cities._METRES_PER_DEGREE
            place = np.array(
                [centre.latitude - row * metres, centre.longitude - column * metres / np.cos(np.deg2rad(52))]
            )
            if pair.city == "Ashford":
                assert great_circle(place, np.array([latitude, longitude])) < 0.1


def test_tiles_overlap_by_half(root):
    vigor = read_vigor(root, "train", cities=NAMES)
    left, right = (cv2.imread(str(tile.path)) for tile in vigor.tiles[:2])
    assert (left[:, 32:] == right[:, :32]).all()


def test_panorama_looks_north_in_the_middle():
    """A map that is red north of the camera, green east, blue south and white west of it."""
    side = 640
    y, x = np.mgrid[:side, :side] - side / 2 + 0.5
    city = np.zeros((side, side, 3), np.float32)
    for condition, colour in (
        (-y > np.abs(x), (1, 0, 0)),
        (x > np.abs(y), (0, 1, 0)),
        (y > np.abs(x), (0, 0, 1)),
        (-x > np.abs(y), (1, 1, 1)),
    ):
        city[condition] = colour
    panorama = cities.render_panorama(city, cities.Camera(320.0, 320.0, ()), 1.0, 128)
    row = panorama[110]
    for column, colour in ((128, (1, 0, 0)), (192, (0, 1, 0)), (2, (0, 0, 1)), (64, (1, 1, 1))):
        assert np.allclose(row[column], colour, atol=0.02)
    # The ground at depression a is 20 / tan(a) pixels away: a ring is seen at its own row.
    ring = np.repeat((np.abs(np.hypot(x, y) - 20) < 1.5)[..., None], 3, 2).astype(np.float32)
    panorama = cities.render_panorama(ring, cities.Camera(320.0, 320.0, ()), 1.0, 128)
    assert abs(int(panorama[70:, 50, 0].argmax()) + 70 - 95.5) <= 1  # 45 degrees below the horizon


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.replace("satellite_5", "satellite_6", 1), r"line 1: tile satellite_6\S+ is not in satellite_list"),
        (lambda s: " ".join(s.split()[:7]), "line 1: 13 columns are needed .* got 7"),
        (lambda s: s.replace(s.split()[2], "x", 1), "line 1: an offset is not a number"),
        (lambda s: s.replace(s.split()[2], "nan", 1), "line 1: an offset is not a finite number"),
        (lambda s: s.replace(s.split()[2], "500", 1), "lies outside the tile; offsets are pixels at 640"),
        (lambda s: "", "same_area_balanced_train.txt is empty"),
    ],
)
def test_lists_that_cannot_be_right(root, tmp_path, change, message):
    copied = copy(root, tmp_path)
    path = copied / "splits_new" / "Ashford" / "same_area_balanced_train.txt"
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=message):
        read_vigor(copied, "train", cities=NAMES)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("satellite_139.7_35.6.png", "latitude 139.7: are latitude and longitude swapped?"),
        ("satellite_200_300.png", "latitude 200, which is no place on Earth"),
        ("satellite_nan_8.png", "no finite coordinates"),
        ("tile7.png", "does not have the form satellite_LATITUDE_LONGITUDE"),
    ],
)
def test_tiles_that_are_no_places(root, tmp_path, name, message):
    copied = copy(root, tmp_path)
    path = copied / "splits_new" / "Ashford" / "satellite_list.txt"
    path.write_text(path.read_text() + name + "\n")
    with pytest.raises(UserError, match=f"line 10: .*{message}"):
        read_vigor(copied, "train", cities=NAMES)


def test_other_refusals(root, tmp_path):
    copied = copy(root, tmp_path)
    path = copied / "splits_new" / "Ashford" / "satellite_list.txt"
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
    with pytest.raises(UserError, match=r"line 10: tile .* is listed twice"):
        read_vigor(copied, "train", cities=NAMES)
    with pytest.raises(UserError, match=r"Chicago.satellite_list.txt is missing; docs/data.md"):
        read_vigor(root, "train")
    with pytest.raises(ValueError, match="protocol must be one of same_area, cross_area"):
        read_vigor(root, "train", protocol="other")
    with pytest.raises(ValueError, match="layout must be one of"):
        read_vigor(root, "train", layout="other")
    with pytest.raises(ValueError, match="num_cities must be 1 to 4"):
        cities.Params(num_cities=9)


def test_cross_area_takes_all_panoramas(root):
    vigor = read_vigor(root, "test", protocol="cross_area", cities=NAMES[:1])
    assert (len(vigor.tiles), len(vigor.pairs)) == (9, 8)
    templates = dict(panorama="ground/{city}/{name}", lists="splits_new/{city}/{list}.txt")
    vigor = read_vigor(root, "test", layout=templates, cities=NAMES[:1])
    assert vigor.pairs[0].panorama.parent == root / "ground" / "Ashford"
