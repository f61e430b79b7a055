"""Folders of images made smaller."""

import numpy as np
import pytest
from PIL import Image

from perception.datasets.shrinking import shrink_folder
from perception.engine.errors import UserError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


def test_pixels_are_averages(folder):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    (folder / "notes.txt").write_text("no image")
    done = []
    assert shrink_folder(folder, folder.with_name("images_4"), 4, lambda *state: done.append(state)) == 1
    assert done == [(1, 1)]
    small = np.asarray(Image.open(folder.with_name("images_4") / "a.png"))
    average = sum(pixels[row::4, column::4].astype(float) for row in range(4) for column in range(4)) / 16
    np.testing.assert_allclose(small, average, atol=0.51)


def test_what_is_transparent_has_no_colour(folder):
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2] = [200, 100, 50, 255]
    pixels[2:] = [255, 0, 255, 0]
    Image.fromarray(pixels).save(folder / "a.png")
    shrink_folder(folder, folder.with_name("small"), 4)
    (pixel,) = np.asarray(Image.open(folder.with_name("small") / "a.png")).reshape(-1, 4)
    np.testing.assert_allclose(pixel, [200, 100, 50, 128], atol=1)


def test_odd_sides_are_rounded_down(folder):
    Image.new("RGB", (99, 66)).save(folder / "a.jpg")
    shrink_folder(folder, folder.with_name("small"), 4)
    assert Image.open(folder.with_name("small") / "a.png").size == (24, 16)


def test_it_appears_whole_or_not_at_all(folder):
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    (folder / "b.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"cannot read .*b\.png"):
        shrink_folder(folder, folder.with_name("small"), 2)
    assert [path.name for path in folder.parent.iterdir()] == ["images"]
    Image.new("I;16", (8, 8)).save(folder / "b.png")
    with pytest.raises(UserError, match="pixels of type I;16"):
        shrink_folder(folder, folder.with_name("small"), 2)
    (folder / "b.png").unlink()
    with pytest.raises(UserError, match="too small for a factor of 16"):
        shrink_folder(folder, folder.with_name("small"), 16)
    with pytest.raises(UserError, match="at least 2, not 1"):
        shrink_folder(folder, folder.with_name("small"), 1)
    with pytest.raises(UserError, match="there is no folder"):
        shrink_folder(folder / "gone", folder.with_name("small"), 2)
    Image.new("RGB", (8, 8)).save(folder / "a.jpg")
    with pytest.raises(UserError, match="differ in their suffix alone"):
        shrink_folder(folder, folder.with_name("small"), 2)


def test_the_command(run_tool, folder):
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    done = run_tool("dataset_converters/shrink_images", folder.parent, "--factor", 4)
    assert done.code == 0, done.err
    assert "images_4: 1 images" in done.out
    again = run_tool("dataset_converters/shrink_images", folder.parent, "--factor", 4)
    assert again.code == 1
    assert "images_4 exists: remove it to make it anew" in again.err
