"""Windows of files: the pixels are those of the whole image, whichever reader is used."""

import importlib.util
import warnings

import cv2
import numpy as np
import pytest
from PIL import Image

from perception.inference.images import raster as raster_module
from perception.inference.images.decoding import decode
from perception.inference.images.raster import DamagedError, open_raster
from perception.inference.images.tiles import Tiling, Window, tiles
from perception.inference.reading import Refused
from perception.inference.scan import Source
from tests.inference.conftest import make_image

rasterio = pytest.importorskip("rasterio")
pytest.importorskip("pyvips")
WIDTH, HEIGHT = 300, 217


def _source(path):
    return Source.of_file(path.name, path, path.stat().st_size)


def _whole(raster, tiling=Tiling(64, 16)):  # noqa: B008  (frozen)
    result = np.zeros((raster.height, raster.width, 3), np.uint8)
    for tile in tiles(raster.width, raster.height, tiling):
        window = tile.window
        part = raster.read(window)
        assert part.shape == (window.height, window.width, 3)
        result[window.top : window.bottom, window.left : window.right] = part
    raster.close()
    return result


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rasters")
    pixels = make_image(3, WIDTH, HEIGHT)
    image = Image.fromarray(pixels)
    turned = image.getexif()
    turned[0x112] = 6
    for suffix in ("png", "jpg", "tif", "webp", "bmp", "ppm", "jp2", "gif"):
        image.save(folder / f"plain.{suffix}")
    for suffix in ("jpg", "tif"):
        image.save(folder / f"turned.{suffix}", exif=turned)
    for name in ("L.png", "L.tif", "P.png", "P.tif", "RGBA.png", "LA.png", "1.png", "1.tif", "CMYK.jpg"):
        image.convert(name.partition(".")[0]).save(folder / name)
    image.save(folder / "progressive.jpg", progressive=True)
    image.save(folder / "striped.tif", compression="tiff_lzw")
    for suffix in ("png", "tif"):
        cv2.imwrite(str(folder / f"deep.{suffix}"), pixels.astype(np.uint16) * 257)
        cv2.imwrite(str(folder / f"deep_grey.{suffix}"), pixels[..., 1].astype(np.uint16) * 257)
    return folder


def test_windows_are_those_of_the_decoded_image(files):
    for path in sorted(files.iterdir()):
        expected = decode(_source(path), None, allow_large=True)
        raster = open_raster(_source(path))
        assert (raster.height, raster.width) == expected.pixels.shape[:2], path.name
        assert np.array_equal(_whole(raster), expected.pixels), path.name


def test_every_kind_of_file_is_read_in_parts(files):
    kinds = {path.name: type(open_raster(_source(path))).__name__ for path in files.iterdir()}
    assert set(kinds.values()) == {"_VipsRaster", "GdalRaster"}
    assert kinds["plain.tif"] == kinds["plain.jp2"] == kinds["plain.bmp"] == "GdalRaster"
    assert kinds["plain.jpg"] == kinds["plain.png"] == kinds["turned.tif"] == "_VipsRaster"


def test_each_row_is_decoded_once(files, monkeypatch):
    counted = []
    original = raster_module._VipsRaster._read_rows
    monkeypatch.setattr(
        raster_module._VipsRaster,
        "_read_rows",
        lambda self, top, count: (counted.append((top, count)), original(self, top, count))[1],
    )
    _whole(open_raster(_source(files / "plain.png")), Tiling(64, 30))
    assert sum(count for _, count in counted) == HEIGHT
    assert [top for top, _ in counted] == np.cumsum([0] + [count for _, count in counted[:-1]]).tolist()


def test_without_the_extra_images_are_decoded_whole_and_that_is_said(files, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    raster_module._say_whole.cache_clear()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for name in ("plain.jpg", "plain.tif", "turned.jpg"):
            raster = open_raster(_source(files / name))
            assert np.array_equal(_whole(raster), decode(_source(files / name), None, True).pixels)
    assert ["pip install rasterio pyvips pyvips-binary" in str(warning.message) for warning in said] == [True]


def test_what_cannot_be_read(files, tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "words.jpg").write_text("no image")
    (tmp_path / "words.tif").write_text("no image")
    with rasterio.open(
        tmp_path / "wave.tif", "w", driver="GTiff", width=9, height=9, count=1, dtype="complex64", crs="EPSG:4326",
        transform=rasterio.Affine(1, 0, 0, 0, -1, 0),
    ) as file:  # fmt: skip
        file.write(np.ones((1, 9, 9), np.complex64))
    reasons = ("empty file", "not an image", "not an image", "complex64 samples")
    for name, reason in zip(("empty.png", "words.jpg", "words.tif", "wave.tif"), reasons):
        refused = open_raster(_source(tmp_path / name))
        assert isinstance(refused, Refused)
        assert reason in refused.reason


@pytest.mark.parametrize("name", ["plain.jpg", "plain.png", "striped.tif"])
def test_a_file_that_breaks_off(files, tmp_path, name):
    path = tmp_path / name
    content = (files / name).read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    raster = open_raster(_source(path))
    if isinstance(raster, Refused):  # TIFF keeps its table of contents at the end
        assert name == "striped.tif"
        return
    with pytest.raises(DamagedError, match="damaged"):
        _whole(raster)


@pytest.mark.parametrize("blocks", [{"tiled": True, "blockxsize": 64, "blockysize": 64}, {"blockysize": 8}])
def test_geotiff(tmp_path, blocks):
    pixels = make_image(4, WIDTH, HEIGHT)
    path = tmp_path / "scene.tif"
    transform = rasterio.Affine(0.5, 0, 400000, 0, -0.5, 5600000)
    with rasterio.open(
        path, "w", driver="GTiff", width=WIDTH, height=HEIGHT, count=4, dtype="uint8", crs="EPSG:32633",
        transform=transform, compress="deflate", **blocks,
    ) as file:  # fmt: skip
        file.write(np.concatenate([pixels.transpose(2, 0, 1), np.full((1, HEIGHT, WIDTH), 77, np.uint8)]))
    raster = open_raster(_source(path))
    assert raster.georeference.crs == "urn:ogc:def:crs:EPSG::32633"
    assert raster.georeference.transform == (0.5, 0, 400000, 0, -0.5, 5600000)
    assert np.array_equal(raster.read(Window(10, 20, 30, 40)), pixels[20:60, 10:40])
    raster.close()
    assert np.array_equal(_whole(open_raster(_source(path))), pixels)


@pytest.mark.parametrize("bits", [4, 12])
def test_samples_of_fewer_bits(tmp_path, bits):
    path = tmp_path / "few.tif"
    values = np.arange(2**bits, dtype=np.uint16).reshape(1, -1, 16)
    with rasterio.open(
        path, "w", driver="GTiff", width=16, height=values.shape[1], count=1, dtype="uint8" if bits < 8 else "uint16",
        nbits=bits, crs="EPSG:32633", transform=rasterio.Affine(1, 0, 5, 0, -1, 5),
    ) as file:  # fmt: skip
        file.write(values.astype(file.dtypes[0]))
    pixels = _whole(open_raster(_source(path)))
    expected = values[0] * 17 if bits == 4 else values[0] >> 4
    assert np.array_equal(pixels[..., 1], expected)


def test_files_that_are_something_else(files, tmp_path):
    """Other things than images may open by their content: a list of other files, a drawing."""
    vrt = tmp_path / "evil.tif"
    vrt.write_text(
        f"""<VRTDataset rasterXSize="{WIDTH}" rasterYSize="{HEIGHT}"><VRTRasterBand dataType="Byte" band="1">
        <SimpleSource><SourceFilename>{files / "plain.tif"}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>
        </VRTRasterBand></VRTDataset>"""
    )
    refused = open_raster(_source(vrt))
    assert isinstance(refused, Refused)
    assert "has to be named .vrt" in refused.reason
    assert _whole(open_raster(_source(vrt.rename(tmp_path / "meant.vrt")))).shape == (HEIGHT, WIDTH, 3)
    drawing = tmp_path / "drawing.jpg"
    drawing.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'
    )
    assert isinstance(open_raster(_source(drawing)), Refused)


@pytest.mark.parametrize(("name", "kind"), [("progressive.jpg", "progressive JPEG"), ("plain.webp", "WEBP")])
def test_formats_without_rows_are_named(files, monkeypatch, name, kind):
    monkeypatch.setattr(raster_module, "FULL_PIXELS", 100)
    raster_module._say_not_by_rows.cache_clear()
    with pytest.warns(UserWarning, match=f"{kind} hold the whole image"):
        raster = open_raster(_source(files / name))
    assert np.array_equal(_whole(raster), decode(_source(files / name), None, True).pixels)


def test_interlaced_rows_are_not_in_turn(tmp_path, monkeypatch):
    import pyvips

    pixels = make_image(6, 90, 70)
    pyvips.Image.new_from_array(pixels).write_to_file(str(tmp_path / "woven.png"), interlace=True)
    assert raster_module._not_by_rows(tmp_path / "woven.png") == "interlaced PNG"
    assert np.array_equal(_whole(open_raster(_source(tmp_path / "woven.png"))), pixels)
