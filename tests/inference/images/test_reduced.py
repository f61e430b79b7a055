"""Reduced images in windows: means of blocks of the whole image, whichever reader is used."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from perception.datasets.windows import Window
from perception.inference.images import raster as raster_module
from perception.inference.images import windowed
from perception.inference.images.gdal_raster import SampleOptions
from perception.inference.images.overviews import NO_AVERAGES
from perception.inference.images.raster import open_raster
from perception.inference.images.tiles import Tiling, tiles
from perception.inference.images.windowed import DamagedError, block_means
from tests.inference.conftest import make_image
from tests.inference.images.test_raster import _source

rasterio = pytest.importorskip("rasterio")
pytest.importorskip("pyvips")
WIDTH, HEIGHT = 331, 218


def means(pixels, factor):
    """By numpy, of the blocks that are full."""
    height, width = pixels.shape[0] // factor, pixels.shape[1] // factor
    blocks = pixels[: height * factor, : width * factor].reshape(height, factor, width, factor, -1)
    return blocks.mean((1, 3))


def read_whole(raster):
    """By overlapping windows, from the top."""
    pixels = np.zeros((raster.height, raster.width, 3), np.uint8)
    valid = np.ones((raster.height, raster.width), bool)
    for tile in tiles(raster.width, raster.height, Tiling(48, 11)):
        window = tile.window
        rows, columns = slice(window.top, window.bottom), slice(window.left, window.right)
        pixels[rows, columns] = raster.read(window)
        known = raster.valid(window)
        if known is not None:
            valid[rows, columns] = known
    raster.close()
    return pixels, valid


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reduced")
    pixels = make_image(3, WIDTH, HEIGHT)
    noise = np.random.default_rng(0).integers(-20, 21, pixels.shape)
    image = Image.fromarray((pixels.astype(int) + noise).clip(0, 255).astype(np.uint8))
    turned = image.getexif()
    turned[0x112] = 6
    for suffix in ("png", "jpg", "tif", "webp", "bmp", "jp2", "gif"):
        image.save(folder / f"plain.{suffix}", quality=95)
    image.save(folder / "turned.jpg", exif=turned)
    image.save(folder / "progressive.jpg", progressive=True)
    image.save(folder / "striped.tif", compression="tiff_lzw")
    for name in ("L.png", "P.png", "P.tif", "RGBA.png", "1.tif", "CMYK.jpg"):
        image.convert(name.partition(".")[0]).save(folder / name)
    cv2.imwrite(str(folder / "deep.png"), np.asarray(image).astype(np.uint16) * 257)
    with rasterio.open(
        folder / "tiled.tif", "w", driver="GTiff", width=WIDTH, height=HEIGHT, count=3, dtype="uint8",
        tiled=True, blockxsize=64, blockysize=64,
    ) as file:  # fmt: skip
        file.write(np.asarray(image).transpose(2, 0, 1))
    return folder


@pytest.mark.parametrize("factor", [2, 3, 4, 8, 16])
def test_windows_of_a_reduced_image_are_those_of_the_whole_image_reduced(files, factor, monkeypatch):
    monkeypatch.setattr(windowed, "_BAND_BYTES", 20_000)
    for path in sorted(files.iterdir()):
        raster = open_raster(_source(path))
        native, _ = read_whole(raster.reopened())
        reduced = raster.reduced(factor)
        assert (reduced.width, reduced.height) == (raster.width // factor, raster.height // factor)
        found, _ = read_whole(reduced)
        raster.close()
        difference = np.abs(found - means(native, factor))
        if path.name.endswith(".jpg") and factor % 8 == 0 and path.name != "progressive.jpg":
            # Colours have been halved in the file, and are not enlarged first.
            assert difference.mean() < 1, path.name
            assert difference.max() < 8, path.name
        else:
            assert difference.max() <= 0.501, path.name


def test_an_eighth_of_a_jpeg_is_not_decoded_in_full(files, monkeypatch):
    raster = open_raster(_source(files / "plain.jpg"))
    assert type(raster.reduced(8)).__name__ == "_EighthOfJpeg"
    monkeypatch.setattr(raster_module._VipsRaster, "_read_rows", None)
    monkeypatch.setattr(raster_module._EighthOfJpeg, "_read_rows", lambda self, top, count: np.zeros((count, 41, 3)))
    assert raster.reduced(16).read(Window(0, 0, 20, 13)).shape == (13, 20, 3)


def test_what_was_read_before_does_not_matter(files):
    for name in ("plain.png", "turned.jpg", "striped.tif", "tiled.tif"):
        raster = open_raster(_source(files / name))
        raster.read(Window(0, 150, 40, 40))
        reduced = raster.reduced(2)
        part = reduced.read(Window(5, 20, 30, 40))
        again = reduced.reopened()
        np.testing.assert_array_equal(again.read(Window(0, 0, again.width, 60))[20:60, 5:35], part)
        expected = raster.reopened().read(Window(0, 0, raster.width, 130))
        assert np.abs(part - means(expected, 2)[20:60, 5:35]).max() <= 0.501
        window = Window(0, 150, 40, 50)
        np.testing.assert_array_equal(raster.read(window), raster.reopened().read(window))


def test_images_smaller_than_a_block(tmp_path):
    Image.fromarray(make_image(1, 40, 3 + 8)[:3]).save(tmp_path / "flat.png")
    Image.fromarray(make_image(1, 40, 3 + 8)[:3]).save(tmp_path / "flat.tif")
    for name in ("flat.png", "flat.tif"):
        raster = open_raster(_source(tmp_path / name))
        reduced = raster.reduced(8)
        assert (reduced.width, reduced.height) == (5, 1)
        expected = raster.read(Window(0, 0, 40, 3)).reshape(3, 5, 8, 3).mean((0, 2))
        assert np.abs(reduced.read(Window(0, 0, 5, 1))[0] - expected).max() <= 0.501


def test_deep_rasters_with_nodata(tmp_path):
    """Averages are those of data alone; tones are those of the whole image at every level."""
    generator = np.random.default_rng(1)
    samples = generator.integers(1000, 3000, (3, 200, 320)).astype(np.uint16)
    samples[:, :100, :160] = 0
    samples[:, 100, 160] = 0
    for name, profile in (("tiled", dict(tiled=True, blockxsize=64, blockysize=64)), ("striped", {})):
        with rasterio.open(
            tmp_path / f"{name}.tif", "w", driver="GTiff", width=320, height=200, count=3, dtype="uint16", nodata=0,
            **profile,
        ) as file:  # fmt: skip
            file.write(samples)
        raster = open_raster(_source(tmp_path / f"{name}.tif"), SampleOptions(ranges=((1000.0, 3000.0),)))
        pixels, valid = read_whole(raster.reduced(4))
        kept = np.where(samples == 0, np.nan, samples).reshape(3, 50, 4, 80, 4)
        with np.errstate(invalid="ignore"):
            sums, counts = np.nansum(kept, (2, 4)), (~np.isnan(kept)).sum((2, 4))
        expected = ((sums / counts.clip(1) - 1000) / 2000 * 255).clip(0, 255).transpose(1, 2, 0)
        data = counts[0] > 8
        np.testing.assert_array_equal(valid, data)
        assert np.abs(pixels[data] - expected[data]).max() <= 1
        assert not pixels[~data].any()
        raster.close()


def test_palette_with_nodata_is_averaged_as_colours(tmp_path):
    indices = np.random.default_rng(2).integers(0, 3, (64, 96)).astype(np.uint8)
    colours = {0: (0, 0, 0), 1: (200, 40, 10), 2: (20, 80, 240)}
    with rasterio.open(
        tmp_path / "p.tif", "w", driver="GTiff", width=96, height=64, count=1, dtype="uint8", nodata=0,
        photometric="palette",
    ) as file:  # fmt: skip
        file.write(indices, 1)
        file.write_colormap(1, colours)
    pixels, valid = read_whole(open_raster(_source(tmp_path / "p.tif")).reduced(4))
    table = np.array([colours[index] for index in range(3)], float)
    blocks = indices.reshape(16, 4, 24, 4).transpose(0, 2, 1, 3).reshape(16, 24, 16)
    data = blocks > 0
    np.testing.assert_array_equal(valid, data.mean(-1) >= 0.5)
    expected = (table[blocks] * data[..., None]).sum(2) / data.sum(-1, keepdims=True).clip(1)
    assert np.abs(pixels - expected).max() <= 0.501


@pytest.mark.parametrize(("resampling", "used"), [("average", True), ("nearest", False)])
def test_overviews_are_used_if_they_are_averages(tmp_path, resampling, used):
    pixels = np.random.default_rng(3).integers(0, 256, (3, 512, 768)).astype(np.uint8)
    path = tmp_path / "scene.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=768, height=512, count=3, dtype="uint8", tiled=True, blockxsize=128,
        blockysize=128,
    ) as file:  # fmt: skip
        file.write(pixels)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], rasterio.enums.Resampling[resampling])
    raster = open_raster(_source(path))
    for factor in (2, 4, 8):
        reduced = raster.reduced(factor)
        assert reduced.remark == ("" if used else NO_AVERAGES)
        found, _ = read_whole(reduced)
        # Averages of averages are rounded more than once.
        assert np.abs(found - means(pixels.transpose(1, 2, 0), factor)).max() <= 1.5
    raster.close()
    with rasterio.open(path, "r+") as file:
        file.write(np.zeros((3, 40, 40), np.uint8), window=rasterio.windows.Window(720, 460, 40, 40))
    corner = open_raster(_source(path)).reduced(2).read(Window(364, 234, 8, 8))
    assert corner.any() == used


def test_a_damaged_file_is_told_when_it_is_read(files, tmp_path):
    content = (files / "plain.png").read_bytes()
    (tmp_path / "broken.png").write_bytes(content[: len(content) // 2])
    raster = open_raster(_source(tmp_path / "broken.png"))
    with pytest.raises(DamagedError, match="damaged"):
        raster.reduced(2).read(Window(0, 0, 100, 109))


def test_block_means_of_several_types():
    values = np.random.default_rng(4).random((9, 14, 3)).astype(np.float32)
    np.testing.assert_allclose(block_means(values, 4), means(values, 4), rtol=1e-5)
    assert block_means((values * 255).astype(np.uint8), 3).shape == (3, 4, 3)


MEASURE = """
import re, sys
from pathlib import Path
import cv2
from perception.datasets.windows import Window
from perception.inference.images.raster import open_raster
from perception.inference.scan import Source
path = Path(sys.argv[1])

def held():
    # getrusage would count what the parent held when it forked.
    return int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) * 1024

raster = open_raster(Source.of_file(path.name, path, path.stat().st_size))
before = held()
for factor in (2, 4, 16):
    reduced = raster.reduced(factor)
    for top in range(0, reduced.height - 255, 256):
        for left in range(0, reduced.width - 255, 256):
            reduced.read(Window(left, top, 256, 256))
    reduced.close()
print(held() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "strip.tif"])
def test_memory_does_not_depend_on_the_area(suffix, tmp_path):
    import pyvips

    patch = pyvips.Image.new_from_array(make_image(5, 512, 512))
    options = {"tif": dict(tile=True, compression="deflate"), "strip.tif": dict(compression="deflate")}.get(suffix, {})
    taken = []
    for rows in (3, 24):  # of 512 pixels; 4096 pixels across, so that the taller image has 151 MB
        path = tmp_path / f"{rows}.{suffix}"
        patch.replicate(8, rows).write_to_file(str(path), **options)
        done = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True)
        taken.append(int(done.stdout))
    assert taken[1] < taken[0] + 75e6  # half of the taller image
    assert taken[1] < 120e6
