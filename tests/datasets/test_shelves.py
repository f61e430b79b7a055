"""The built-in forward-facing scene: exact at two resolutions, in LLFF layout."""

import filecmp

import numpy as np
import pytest
from PIL import Image

from perception.datasets.synthetic import shelves

PARAMS = shelves.Params(views=9, width=24, height=18, scale=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("shelves") / "scene"
    shelves.write(out, PARAMS)
    return out


def test_small_images_are_exact_averages(folder):
    for path in sorted((folder / "images").iterdir()):
        large = np.asarray(Image.open(path))
        small = np.asarray(Image.open(folder / "images_4" / path.name))
        assert (large.shape, small.shape) == ((72, 96, 3), (18, 24, 3))
        average = sum(large[row::4, column::4].astype(float) for row in range(4) for column in range(4)) / 16
        np.testing.assert_allclose(small, average, atol=0.5)


def test_enlarging_loses_what_the_large_images_show(folder):
    large = np.asarray(Image.open(folder / "images/image_004.png")).astype(float)
    small = Image.open(folder / "images_4/image_004.png").resize((96, 72), Image.Resampling.BICUBIC)
    assert -10 * np.log10((((large - small) / 255) ** 2).mean()) < 25


def test_bounds_are_percentiles_of_the_depths(folder):
    table = np.load(folder / "poses_bounds.npy")
    assert table.shape == (9, 17)
    for number, row in enumerate(table):
        depth = np.load(folder / f"geometry/image_{number:03d}.npz")["depth"]
        assert np.isfinite(depth).all()
        np.testing.assert_allclose(row[15:], np.percentile(depth, (0.1, 99.9)), rtol=1e-6)
        assert row[[4, 9]].tolist() == [72, 96]
        assert row[14] == pytest.approx(0.85 * 96)


def test_rows_hold_the_axes_down_right_backwards(folder):
    table = np.load(folder / "poses_bounds.npy")[:, :15].reshape(-1, 3, 5)
    poses = shelves.cameras_of(PARAMS)
    np.testing.assert_allclose(table[:, :, 0], -poses[:, :3, 1])
    np.testing.assert_allclose(table[:, :, 1], poses[:, :3, 0])
    np.testing.assert_allclose(table[:, :, 2:4], poses[:, :3, 2:])


def test_cameras_face_forward_and_none_is_at_anothers_place():
    poses = shelves.cameras_of(shelves.Params())
    np.testing.assert_allclose(
        poses[:, :3, :3] @ poses[:, :3, :3].transpose(0, 2, 1), np.broadcast_to(np.eye(3), (20, 3, 3)), atol=1e-12
    )
    assert (-poses[:, 1, 2] > np.cos(np.radians(20))).all()  # along +y
    assert (poses[:, 2, 1] > 0.9).all()  # upright
    distances = np.linalg.norm(poses[:, None, :3, 3] - poses[None, :, :3, 3], axis=-1) + 9 * np.eye(20)
    assert distances.min() > 0.05


def test_same_parameters_same_bytes_and_another_seed_another_scene(folder, tmp_path):
    shelves.write(tmp_path / "again", PARAMS)
    names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    assert len(names) == 9 * 3 + 2
    _, different, missing = filecmp.cmpfiles(folder, tmp_path / "again", names, shallow=False)
    assert not different
    assert not missing
    other = shelves.scene_of(shelves.Params(seed=1))
    assert other.solids != shelves.scene_of(PARAMS).solids


@pytest.mark.parametrize("wrong", [{"views": 1}, {"width": 4}, {"height": 2}, {"scale": 1}, {"seed": -1}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        shelves.Params(**wrong)


def test_command_writes_it(run_tool, tmp_path):
    options = ("--views", 2, "--width", 12, "--height", 9, "--scale", 2)
    done = run_tool("make_demo_data", "shelves", "--out", tmp_path / "scene", *options)
    assert done.code == 0, done.err
    assert "train: 1 images, test: 1 images" in done.out
    assert len(list((tmp_path / "scene/images_2").iterdir())) == 2
