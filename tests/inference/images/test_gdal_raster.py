"""Rasters of every kind: range, bands, nodata and place, the same in windows and whole."""

import numpy as np
import pytest
from PIL import Image

from perception.inference.images.decoding import decode
from perception.inference.images.gdal_raster import SampleOptions
from perception.inference.images.raster import open_raster, open_windows
from perception.inference.images.reader import ImageReader
from perception.inference.images.sample import GroundControl, ImageSample
from perception.inference.images.tiles import Tiling, tiles
from perception.inference.reading import Refused
from perception.inference.scan import Source
from tests.inference.conftest import make_image

rasterio = pytest.importorskip("rasterio")
WIDTH, HEIGHT = 150, 110
PLACE = dict(crs="EPSG:32633", transform=rasterio.Affine(0.5, 0, 400000, 0, -0.5, 5600000))
TILED = dict(tiled=True, blockxsize=64, blockysize=64)


@pytest.fixture(scope="module")
def pixels():
    """uint8 (3, height, width), from black to white."""
    image = make_image(3, WIDTH, HEIGHT).transpose(2, 0, 1).copy()
    image[:, 40:50, 60:70], image[:, 10:20, 20:30] = 255, 0
    return image


def _write(path, bands, colours=None, masks=None, **options):
    options = {**PLACE, **options}
    with rasterio.open(
        path, "w", driver="GTiff", width=WIDTH, height=HEIGHT, count=len(bands), dtype=bands.dtype, **options
    ) as file:
        file.write(bands)
        if colours is not None:
            file.colorinterp = [rasterio.enums.ColorInterp[colour] for colour in colours]
        if masks is not None:
            file.write_mask(masks)
    return Source.of_file(path.name, path, path.stat().st_size)


def _read(source, **options):
    """The image in both ways, which have to agree: (height, width, 3), and what of it is data."""
    options = SampleOptions(**options)
    raster = open_raster(source, options)
    assert not isinstance(raster, Refused), raster.reason
    shape = raster.height, raster.width
    joined, valid = np.zeros((*shape, 3), np.uint8), np.ones(shape, bool)
    for tile in tiles(raster.width, raster.height, Tiling(64, 16)):
        window = tile.window
        place = slice(window.top, window.bottom), slice(window.left, window.right)
        joined[place] = raster.read(window)
        part = raster.valid(window)
        if part is not None:
            valid[place] = part
    raster.close()
    sample = ImageReader(None, options).read(source, alone=True)
    assert isinstance(sample, ImageSample), sample.reason
    assert np.array_equal(sample.pixels, joined)
    assert np.array_equal(valid, np.ones(shape, bool) if sample.valid is None else sample.valid)
    assert (sample.width, sample.height) == (raster.width, raster.height)
    assert sample.reading == raster.reading
    assert sample.georeference == raster.georeference
    return joined, valid, sample


def _alike(image, pixels, most=3):
    """Whether an image shows these pixels, as closely as its samples allow."""
    return np.abs(image.transpose(2, 0, 1).astype(int) - pixels).max() <= most


DEPTHS = {
    "10 bits": lambda p: p.astype(np.uint16) << 2,
    "11 bits": lambda p: p.astype(np.uint16) << 3,
    "12 bits": lambda p: p.astype(np.uint16) << 4,
    "14 bits": lambda p: p.astype(np.uint16) << 6,
    "16 bits": lambda p: p.astype(np.uint16) * 257,
    "reflectance times 10000": lambda p: p.astype(np.uint16) * 12,
    "with haze": lambda p: p.astype(np.uint16) * 9 + 700,
    "signed": lambda p: p.astype(np.int16) * 12 - 1000,
    "signed 8": lambda p: (p.astype(np.int16) - 128).astype(np.int8),
    "32 bits": lambda p: p.astype(np.uint32) * 70000,
    "reflectance": lambda p: p.astype(np.float32) * 0.0012,
    "decibel": lambda p: p.astype(np.float64) / 10 - 25,
}


@pytest.mark.parametrize("blocks", [TILED, {"blockysize": 8}], ids=["tiled", "striped"])
@pytest.mark.parametrize("depth", DEPTHS)
def test_any_samples_show_the_same_image(tmp_path, pixels, depth, blocks):
    image, valid, sample = _read(_write(tmp_path / "a.tif", DEPTHS[depth](pixels), **blocks))
    assert _alike(image, pixels)
    assert valid.all()
    if depth == "16 bits":
        assert (sample.remark, sample.reading) == ("", None)
        assert np.array_equal(image.transpose(2, 0, 1), pixels)
    else:
        assert "99.8 % of them) become black to white" in sample.remark
        assert sample.reading["bands"] == [1, 2, 3]


def test_a_few_reflections_do_not_make_an_image_black(tmp_path, pixels):
    samples = pixels.astype(np.uint16) * 8
    samples[:, 5, 5:10] = 65535
    image, _, _ = _read(_write(tmp_path / "a.tif", samples))
    assert _alike(np.delete(image, 5, 0), np.delete(pixels, 5, 1))


@pytest.mark.parametrize(("fill", "kind"), [(-9999, np.int16), (65535, np.uint16), (-3.4e38, np.float32)])
def test_fill_that_the_file_does_not_own_up_to_is_not_the_range(tmp_path, pixels, fill, kind):
    samples = pixels.astype(kind) * 8
    samples[:, :30, 80:] = fill
    image, valid, _ = _read(_write(tmp_path / "a.tif", samples))
    assert _alike(image[30:], pixels[:, 30:])
    assert valid.all()


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_a_number_of_bits_is_taken_as_it_is_stated(tmp_path, pixels, bits):
    dim = pixels // 4 * 3  # the brightest samples are below white
    source = _write(tmp_path / "a.tif", dim.astype(np.uint16) << (bits - 8), nbits=bits)
    image, _, sample = _read(source)
    assert np.array_equal(image.transpose(2, 0, 1), dim)
    assert (sample.remark, sample.reading) == ("", None)
    # But not if the samples use a small part of them.
    image, _, sample = _read(_write(tmp_path / "b.tif", pixels.astype(np.uint16) << (bits - 10), nbits=bits))
    assert _alike(image, pixels)
    assert "99.8 %" in sample.remark


def test_statistics_are_taken_if_they_are_right(tmp_path, pixels):
    source = _write(tmp_path / "a.tif", pixels.astype(np.uint16) * 10)
    for least, greatest, why in ((0, 4000, "its statistics"), (0, 900, "99.8 %"), (0, 65000, "99.8 %")):
        with rasterio.open(source.path, "r+") as file:
            for band in (1, 2, 3):
                file.update_tags(band, STATISTICS_MINIMUM=least, STATISTICS_MAXIMUM=greatest)
        image, _, sample = _read(source)
        assert why in sample.remark
        assert _alike(image, pixels * (2550 / 4000) if "statistics" in why else pixels)


def test_scale_and_offset_count_before_the_range(tmp_path, pixels):
    """Bands that were scaled in different ways show their true colours."""
    red, green, blue = pixels.astype(np.uint16)
    samples = np.stack([red * 2, green * 8 + 500, blue * 4])
    source = _write(tmp_path / "a.tif", samples)
    with rasterio.open(source.path, "r+") as file:
        file.scales, file.offsets = (0.5, 0.125, 0.25), (0, -62.5, 0)
    assert _alike(_read(source)[0], pixels)
    assert _alike(_read(source, ranges=((0, 255),))[0], pixels)


def test_statistics_are_scaled_band_by_band(tmp_path, pixels):
    red, green, blue = pixels.astype(np.uint16)
    source = _write(tmp_path / "a.tif", np.stack([red, green, blue * 100]))
    with rasterio.open(source.path, "r+") as file:
        file.scales = (1, 1, 0.01)
        for band, greatest in ((1, 255), (2, 255), (3, 25500)):
            file.update_tags(band, STATISTICS_MINIMUM=0, STATISTICS_MAXIMUM=greatest)
    image, _, sample = _read(source)
    assert "from 0 to 255 (its statistics)" in sample.remark
    assert _alike(image, pixels, 1)


def test_the_range_is_the_users(tmp_path, pixels):
    source = _write(tmp_path / "a.tif", pixels.astype(np.uint16) * 8)
    image, _, sample = _read(source, ranges=((0, 4080),))
    assert _alike(image, pixels / 2)
    assert sample.remark == ""
    assert sample.reading == {"bands": [1, 2, 3], "range": [[0, 4080]] * 3}
    each = _read(source, ranges=((0, 2040), (0, 4080), (1020, 2040)))[0].astype(int)
    assert np.abs(each[..., 0] - pixels[0]).max() <= 1
    assert np.abs(each[..., 1] - pixels[1] / 2).max() <= 1
    assert np.abs(each[..., 2] - (pixels[2] * 2.0 - 255).clip(0)).max() <= 2
    # Of 8-bit images and of those that are no rasters as well.
    assert _alike(_read(_write(tmp_path / "b.tif", pixels // 2), ranges=((0, 127.5),))[0], pixels)
    Image.fromarray(np.ascontiguousarray(pixels[0] // 2)).save(tmp_path / "c.png")
    source = Source.of_file("c.png", tmp_path / "c.png", 1)
    assert _alike(_read(source, ranges=((0, 127.5),))[0], pixels[:1])
    two = open_raster(_write(tmp_path / "d.tif", pixels[:1]), SampleOptions(ranges=((0, 1),) * 3))
    assert two.reason == "--range has ranges of 3 bands, but 1 are seen"


COLOURS = {
    "as they come": (None, (0, 1, 2)),
    "blue first": (("blue", "green", "red", "undefined"), (2, 1, 0, 0)),
    "alpha first": (("alpha", "red", "green", "blue"), (None, 0, 1, 2)),
    "infrared and colours": (("nir", "red", "coastal", "green", "blue"), (0, 0, 2, 1, 2)),
    "alpha last": (("red", "green", "blue", "alpha"), (0, 1, 2, None)),
}


@pytest.mark.parametrize("blocks", [TILED, {"blockysize": 8}], ids=["tiled", "striped"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("name", COLOURS)
def test_bands_are_found_by_their_colours(tmp_path, pixels, name, kind, blocks):
    colours, content = COLOURS[name]
    opaque = np.full((HEIGHT, WIDTH), 255)
    opaque[:20, :30] = 0
    scale = 1 if kind == np.uint8 else 8
    bands = np.stack([opaque if band is None else pixels[band] for band in content]).astype(kind) * kind(scale)
    image, valid, sample = _read(_write(tmp_path / "a.tif", bands, colours, photometric="MINISBLACK", **blocks))
    if None in content:
        assert np.array_equal(valid, opaque > 0)
        image = np.where(valid[..., None], image, 0)
        pixels = np.where(valid, pixels, 0)
    assert _alike(image, pixels)
    assert "does not say" not in sample.remark


def test_bands_that_do_not_say_what_they_are(tmp_path, pixels):
    bands = np.concatenate([pixels, 255 - pixels[:2]])
    source = _write(tmp_path / "a.tif", bands, photometric="MINISBLACK")
    image, _, sample = _read(source)
    assert _alike(image, pixels, 0)
    assert sample.remark == (
        "it does not say which of its 5 bands are colours, so that 1, 2, 3 are red, green and blue"
    )
    assert sample.reading == {"bands": [1, 2, 3]}
    assert _alike(_read(source, bands=(3, 2, 1))[0], pixels[::-1], 0)
    assert _alike(_read(source, bands=(4,))[0], bands[3:4], 0)
    assert open_raster(source, SampleOptions(bands=(1, 2, 6))).reason == "it has 5 bands, so there is no band 6"
    with rasterio.open(source.path, "r+") as file:
        for band, name in enumerate(("Blue", "green", "RED"), start=1):
            file.set_band_description(band, name)
    assert _alike(_read(source)[0], pixels[::-1], 0)

    image, _, sample = _read(_write(tmp_path / "two.tif", pixels[:2].astype(np.uint16) * 8))
    assert _alike(image, pixels[:1])
    assert "1 is shown in grey" in sample.remark


NODATA = {
    "value": (dict(nodata=0), np.uint8),
    "of 16 bits": (dict(nodata=65535), np.uint16),
    "negative": (dict(nodata=-9999), np.int16),
    "not a number": (dict(nodata=np.nan), np.float32),
    "not even said": ({}, np.float32),
    "mask": (dict(mask=True), np.uint8),
}


@pytest.mark.parametrize("blocks", [TILED, {"blockysize": 8}], ids=["tiled", "striped"])
@pytest.mark.parametrize("name", NODATA)
def test_pixels_without_data_are_known(tmp_path, pixels, name, blocks):
    options, kind = NODATA[name]
    options = dict(options)
    hole = np.zeros((HEIGHT, WIDTH), bool)
    hole[:30, 80:] = True
    samples = pixels.clip(1).astype(kind) * kind(1 if kind == np.uint8 else 8)
    masks = np.where(hole, 0, 255).astype(np.uint8) if options.pop("mask", False) else None
    if masks is None:
        samples[:, hole] = options.get("nodata", np.nan)
    samples[0, 50:60, 50:60] = options.get("nodata", samples[0, 50, 50])  # in one band only: that is data
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        source = _write(tmp_path / "a.tif", samples, masks=masks, **options, **blocks)
    image, valid, _ = _read(source)
    assert np.array_equal(valid[:50], ~hole[:50])
    assert _alike(image[60:], pixels[:, 60:])
    if kind != np.uint8:
        assert (image[hole] == 0).all()
    if kind != np.float32:
        assert valid[50:].all()


def test_grey_palette_and_white_at_zero(tmp_path, pixels):
    assert _alike(_read(_write(tmp_path / "grey.tif", pixels[:1].astype(np.uint16) * 8))[0], pixels[:1])
    assert _alike(_read(_write(tmp_path / "white.tif", pixels[:1], photometric="MINISWHITE"))[0], 255 - pixels[:1], 0)
    deep = _write(tmp_path / "white16.tif", pixels[:1].astype(np.uint16) * 8, photometric="MINISWHITE")
    assert _alike(_read(deep)[0], 255 - pixels[:1])
    source = _write(tmp_path / "palette.tif", pixels[:1] // 64, photometric="PALETTE")
    with rasterio.open(source.path, "r+") as file:
        file.write_colormap(1, {index: (10 * index, 200 - index, 7, 255) for index in range(4)})
    image, _, _ = _read(source)
    assert np.array_equal(image[..., 0], pixels[0] // 64 * 10)
    assert np.array_equal(image[..., 1], 200 - pixels[0] // 64)
    refused = open_raster(source, SampleOptions(ranges=((0, 1),)))
    assert refused.reason == "its samples are indices of a palette, to which --range does not apply"
    refused = open_raster(_write(tmp_path / "complex.tif", pixels.astype(np.complex64)))
    assert refused.reason == "complex64 samples, which have no brightness"


@pytest.mark.parametrize(
    "options",
    [
        dict(compress="jpeg", photometric="YCBCR"),
        dict(compress="lzw", predictor=2),
        dict(compress="zstd"),
        dict(compress="lerc"),
        dict(interleave="band", **TILED),
        dict(bigtiff="yes"),
    ],
    ids=str,
)
def test_plain_images_are_those_of_other_readers(tmp_path, pixels, options):
    source = _write(tmp_path / "a.tif", pixels, **options)
    whole = ImageReader().read(source, alone=True)
    assert whole.georeference.crs == "urn:ogc:def:crs:EPSG::32633"
    assert (whole.remark, whole.reading, whole.valid) == ("", None, None)
    if options.get("photometric") == "YCBCR":  # colours are spread by other filters
        raster = open_raster(source)
        window = tiles(WIDTH, HEIGHT, Tiling(500, 0))[0].window
        assert np.abs(raster.read(window).astype(int) - whole.pixels).mean() < 3
        return
    image, _, _ = _read(source)
    assert np.array_equal(image.transpose(2, 0, 1), pixels)
    pillow = decode(source, None, True)
    assert isinstance(pillow, Refused) or np.array_equal(pillow.pixels, image)


@pytest.mark.parametrize("name", ["LAB.tif", "CMYK.tif"])
def test_colours_that_readers_convert_differently_have_one_reader(tmp_path, pixels, name):
    from PIL import ImageCms

    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    if name == "LAB.tif":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    else:
        image = image.convert("CMYK")
    image.save(tmp_path / name)
    source = Source.of_file(name, tmp_path / name, 1)
    assert np.array_equal(_read(source)[0], decode(source, None, True).pixels)


def test_places(tmp_path, pixels):
    turned = rasterio.Affine(0.4, 0.3, 400000.7, 0.3, -0.4, 5600000.1)
    _, _, sample = _read(_write(tmp_path / "turned.tif", pixels, transform=turned))
    assert sample.georeference.transform == tuple(turned)[:6]
    _, _, sample = _read(_write(tmp_path / "nowhere.tif", pixels, crs=None, transform=turned))
    assert sample.georeference.crs is None
    assert sample.georeference.transform == tuple(turned)[:6]
    points = [rasterio.control.GroundControlPoint(row, column, 10 + column, 50 - row, 0) for row, column in
              ((0, 0), (0, 90), (80, 0), (80, 91))]  # fmt: skip
    source = _write(tmp_path / "points.tif", pixels.astype(np.uint16), crs="EPSG:4326", gcps=points, transform=None)
    _, _, sample = _read(source)
    assert sample.georeference is None
    assert sample.ground_control == GroundControl(
        "urn:ogc:def:crs:EPSG::4326", tuple((p.col, p.row, p.x, p.y, 0.0) for p in points)
    )


def test_the_range_is_that_of_the_whole_image(tmp_path):
    """Also of one that is only looked at in places: a dark tile stays dark."""
    width, height = 3000, 2100
    ramp = np.linspace(0, 2000, width).astype(np.uint16)
    path = tmp_path / "a.tif"
    with rasterio.open(path, "w", driver="GTiff", width=width, height=height, count=1, dtype="uint16", **TILED) as file:
        file.write(np.broadcast_to(ramp, (1, height, width)))
    raster = open_raster(Source.of_file("a.tif", path, 1))
    for tile in tiles(width, height, Tiling(1000, 0)):
        window = tile.window
        expected = ramp[window.left : window.right] * (255 / 2000)
        assert np.abs(raster.read(window)[0, :, 0] - expected).max() < 3


def test_large_rasters_are_reduced_or_refused(tmp_path, pixels, monkeypatch):
    from perception.inference.images import decoding
    from perception.inference.images.decoding import InputSize
    from perception.inference.reading import Deferred

    source = _write(tmp_path / "a.tif", pixels.astype(np.uint16) * 8, **TILED)
    monkeypatch.setattr(decoding, "FULL_PIXELS", 5000)
    sample = ImageReader(InputSize(32, 32, True)).read(source, alone=True)
    assert (sample.factor, sample.pixels.shape) == (2, (55, 75, 3))
    halved = pixels.reshape(3, 55, 2, 75, 2).mean((2, 4))
    assert _alike(sample.pixels, halved, 4)
    monkeypatch.setattr(decoding, "LARGE_BYTES", 1000)
    assert isinstance(ImageReader().read(source, alone=False), Deferred)
    monkeypatch.setattr(decoding, "LIMIT_BYTES", 1000)
    assert "--tile reads it in parts" in ImageReader().read(source, alone=True).reason


def test_who_cuts_images_up_hears_of_it(tmp_path, pixels):
    source = _write(tmp_path / "a.tif", pixels.astype(np.uint16) * 8)
    with pytest.warns(UserWarning, match=r"a\.tif: samples from 0 to 2040 .* become black to white"):
        open_windows(source.path).close()


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("scale", [16, 257])
def test_a_deep_png_that_is_dark_is_remarked_on(tmp_path, pixels, bands, scale):
    path = tmp_path / "a.png"
    samples = pixels[:bands].astype(np.uint16) * scale
    with rasterio.open(path, "w", driver="PNG", width=WIDTH, height=HEIGHT, count=bands, dtype="uint16") as file:
        file.write(samples)
    source = Source.of_file("a.png", path, path.stat().st_size)
    said = "its 16-bit samples reach from 0 to 4080 only, so that it is dark; --range 0 4080 is not" * (scale == 16)
    assert ImageReader().read(source, alone=True).remark == said
    raster = open_raster(source)
    assert raster.remark == said
    raster.close()
    image, _, _ = _read(source)
    assert np.array_equal(image.transpose(2, 0, 1), np.broadcast_to(samples >> 8, (3, HEIGHT, WIDTH)))
    assert _alike(_read(source, ranges=((0, 255 * scale),))[0], pixels[:bands])


def test_values_without_data_of_each_band(tmp_path, pixels):
    """A virtual raster may have them; a pixel without data in all bands has none."""
    red, green, blue = (pixels.clip(1).astype(np.int16) * 8).copy()
    fills = (-1, -9999, 32767)
    for band, fill in zip((red, green, blue), fills):
        band[:30, 80:] = fill
    source = _write(tmp_path / "bands.tif", np.stack([red, green, blue]))
    bands = "".join(
        f'<VRTRasterBand dataType="Int16" band="{band}"><NoDataValue>{fill}</NoDataValue><SimpleSource>'
        f"<SourceFilename>{source.path}</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for band, fill in enumerate(fills, start=1)
    )
    path = tmp_path / "a.vrt"
    path.write_text(f'<VRTDataset rasterXSize="{WIDTH}" rasterYSize="{HEIGHT}">{bands}</VRTDataset>')
    image, valid, _ = _read(Source.of_file("a.vrt", path, 1))
    assert not valid[:30, 80:].any()
    assert valid[30:].all()
    assert _alike(image[30:], pixels[:, 30:])


def test_without_the_reader_of_rasters_that_is_said(tmp_path, pixels, monkeypatch):
    import importlib.util

    source = _write(tmp_path / "a.tif", np.concatenate([pixels, pixels]))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "rasterio, which is not installed" in ImageReader().read(source, alone=True).reason
    options = SampleOptions(bands=(1,))
    for refused in (ImageReader(None, options).read(source, alone=True), open_raster(source, options)):
        assert refused.reason == "--range and --bands need rasterio, which cannot read it or is not installed"
