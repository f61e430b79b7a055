"""Every odd kind of image file, and what becomes of it."""

import os
import struct
import subprocess
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from perception.inference.images import decoding
from perception.inference.images.decoding import Decoded, InputSize, decode, reduction_factor
from perception.inference.reading import Deferred, Refused
from perception.inference.scan import Source


def _decode(path, input_size=None, allow_large=True):
    path = Path(path)
    return decode(Source.of_file(path.name, path, path.stat().st_size), input_size, allow_large)


def _gradient(height=40, width=60):
    """A smooth colour picture, so that lossy formats come back almost the same."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], -1).astype(np.uint8)


def _png(width, height, body=b"", depth=8, colour=2):
    """A PNG file made by hand, with whatever sizes its header shall claim."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


@dataclass
class Kind:
    """How to write a file of a kind, and the RGB image it must decode to, up to `tolerance`."""

    suffix: str
    mode: str
    options: dict
    tolerance: int = 0


KINDS = {
    "jpeg": Kind(".jpg", "RGB", {"quality": 95}, 6),
    "progressive_jpeg": Kind(".jpg", "RGB", {"quality": 95, "progressive": True}, 6),
    "grey_jpeg": Kind(".jpg", "L", {"quality": 95}, 3),
    "cmyk_jpeg": Kind(".jpg", "CMYK", {"quality": 95}, 8),
    "png": Kind(".png", "RGB", {}),
    "grey_png": Kind(".png", "L", {}),
    "grey_alpha_png": Kind(".png", "LA", {}),
    "rgba_png": Kind(".png", "RGBA", {}),
    "palette_png": Kind(".png", "P", {"transparency": 3}),
    "one_bit_png": Kind(".png", "1", {}),
    "gif": Kind(".gif", "P", {}),
    "bmp": Kind(".bmp", "RGB", {}),
    "ppm": Kind(".ppm", "RGB", {}),
    "webp": Kind(".webp", "RGB", {"lossless": True}),
    "rgba_webp": Kind(".webp", "RGBA", {"lossless": True, "exact": True}),
    "avif": Kind(".avif", "RGB", {"quality": 95}, 12),
    "jpeg2000": Kind(".jp2", "RGB", {}),
    "tiff": Kind(".tif", "RGB", {"compression": "tiff_lzw"}),
    "cmyk_tiff": Kind(".tif", "CMYK", {}),
    "one_bit_tiff": Kind(".tif", "1", {"compression": "group4"}),
    "wrong_suffix": Kind(".jpg", "RGB", {"format": "PNG"}),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_image_comes_out_as_rgb(tmp_path, name):
    kind = KINDS[name]
    image = Image.fromarray(_gradient()).convert(kind.mode)
    if kind.mode in ("RGBA", "LA"):
        # Alpha is dropped: what it hides counts, as it did in training.
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    expected = np.asarray(image.convert("RGB"), int)
    image.save(tmp_path / f"a{kind.suffix}", **kind.options)
    decoded = _decode(tmp_path / f"a{kind.suffix}")
    assert isinstance(decoded, Decoded), decoded
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.shape == (40, 60, 3)
    assert (decoded.width, decoded.height, decoded.factor) == (60, 40, 1)
    assert np.abs(decoded.pixels - expected).max() <= kind.tolerance


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_pixels_are_those_that_training_sees(tmp_path, suffix):
    # OpenCV reads the files in MMEngine's pipelines; its JPEG library may round differently in the last bit.
    cv2.imwrite(str(tmp_path / f"a{suffix}"), _gradient())
    expected = cv2.cvtColor(cv2.imread(str(tmp_path / f"a{suffix}")), cv2.COLOR_BGR2RGB)
    assert np.abs(_decode(tmp_path / f"a{suffix}").pixels.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bit_grey_keeps_its_range(tmp_path, suffix):
    levels = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    cv2.imwrite(str(tmp_path / f"a{suffix}"), levels)
    pixels = _decode(tmp_path / f"a{suffix}").pixels
    assert np.array_equal(pixels, np.repeat((levels >> 8)[..., None], 3, 2))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_colour_keeps_its_range(tmp_path, suffix):
    image = _gradient().astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / f"a{suffix}"), image[..., ::-1])
    assert np.array_equal(_decode(tmp_path / f"a{suffix}").pixels, _gradient())


@pytest.mark.parametrize("suffix", [".gif", ".tif", ".webp", ".png"])
def test_of_several_frames_the_first_counts(tmp_path, suffix):
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue", "green")]
    options = {"lossless": True} if suffix == ".webp" else {}
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:], **options)
    pixels = _decode(tmp_path / f"a{suffix}").pixels
    assert pixels.shape == (20, 30, 3)
    assert np.array_equal(pixels[10, 15], (255, 0, 0))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(_gradient(32, 64)).save(tmp_path / "a.jpg", quality=98, exif=exif)
    decoded = _decode(tmp_path / "a.jpg")
    upright = cv2.imread(str(tmp_path / "a.jpg"))[..., ::-1]
    assert decoded.pixels.shape == upright.shape
    assert (decoded.width, decoded.height) == ((64, 32) if orientation < 5 else (32, 64))
    assert np.abs(decoded.pixels.astype(int) - upright).max() <= 1


@pytest.mark.parametrize("exif", [b"Exif\x00\x00garbage", b"Exif\x00\x00II*\x00\xff\xff\xff\xff", b"Exif\x00\x00"])
def test_broken_exif_does_not_cost_the_image(tmp_path, exif):
    Image.fromarray(_gradient()).save(tmp_path / "a.jpg", exif=exif)
    assert _decode(tmp_path / "a.jpg").pixels.shape == (40, 60, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".tif", ".webp", ".bmp"])
def test_truncated_files_are_refused(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = tmp_path / f"a{suffix}"
    Image.fromarray(noise).save(path)
    os.truncate(path, path.stat().st_size // 2)
    refused = _decode(path)
    assert isinstance(refused, Refused)
    assert refused.reason.startswith(("damaged: ", "not an image"))


BAD = {
    "empty": (b"", "empty file"),
    "zeros": (bytes(1000), "not an image"),
    "html": (b"<html><body>404</body></html>", "not an image"),
    "three_bytes_of_jpeg": (b"\xff\xd8\xff", "not an image"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "not an image"),
    "no_pixels": (_png(0, 5), "not an image"),
    "gif_without_pixels": (b"GIF89a" + bytes(7) + b"," + bytes(9) + b"\2\2D\1\0;", "not an image"),
    "damaged_header": (_png(4, 4).replace(b"IHDR", b"IHDX"), "not an image"),
    "damaged_data": (_png(64, 64, bytes(range(256)) * 60)[:60] + b"damaged" * 20, "damaged: "),
    "decompression_bomb": (_png(60_000, 60_000), "60000 x 60000 pixels need 33.5 GiB to decode, the limit is 1.5 GiB"),
    "absurd_header": (b"P6 99999999 99999999 255\n", "pixels need"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_with_a_reason(tmp_path, name):
    content, reason = BAD[name]
    (tmp_path / "a.png").write_bytes(content)
    refused = _decode(tmp_path / "a.png")
    assert isinstance(refused, Refused)
    assert reason in refused.reason


@pytest.mark.parametrize(("dtype", "words"), [(np.float32, "floating-point"), (np.int32, "32-bit")])
def test_samples_without_a_white_level_are_refused(tmp_path, dtype, words):
    Image.fromarray(np.ones((4, 4), dtype)).save(tmp_path / "a.tif")
    assert _decode(tmp_path / "a.tif").reason == f"{words} samples, whose white level is not defined"


def test_files_that_may_not_be_read_are_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(_gradient()).save(path)
    source = Source.of_file("a.png", path, path.stat().st_size)
    decode(source, None, True)  # loads what decoding needs, while it may be read
    path.chmod(0)
    if os.geteuid() == 0:
        # Nothing is forbidden to root; be nobody for a moment.
        os.seteuid(65534)
    try:
        refused = decode(source, None, True)
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
    assert refused == Refused("Permission denied")


def test_a_file_that_vanishes_is_refused(tmp_path):
    assert decode(Source.of_file("a.png", tmp_path / "a.png", 1), None, True) == Refused("No such file or directory")


def test_reduction_keeps_twice_the_resolution_that_the_model_sees():
    model = InputSize(1333, 800, keep_ratio=True)
    assert reduction_factor(4000, 3000, model) == 1  # 12 megapixels are decoded in full
    assert reduction_factor(8000, 6000, model) == 2
    assert reduction_factor(12000, 12000, model) == 4
    assert reduction_factor(40000, 400, model) == 1  # thin: 16 megapixels
    assert reduction_factor(12000, 12000, InputSize(4000, 4000, True)) == 1  # the model would notice
    assert reduction_factor(12000, 12000, InputSize(200, 3000, False)) == 2  # by the axis that shrinks least
    assert reduction_factor(12000, 12000, None) == 1


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_large_images_are_decoded_reduced_with_exact_coordinates(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(decoding, "FULL_PIXELS", 5_000)
    image = np.zeros((401, 603, 3), np.uint8)
    image[200:240, 400:480] = 255
    Image.fromarray(image).save(tmp_path / f"a{suffix}")
    decoded = _decode(tmp_path / f"a{suffix}", InputSize(50, 50, True))
    assert (decoded.width, decoded.height, decoded.factor) == (603, 401, 4)
    assert decoded.pixels.shape == (101, 151, 3)
    rows, columns = np.nonzero(decoded.pixels[..., 0] > 128)
    # The bright block's edges, mapped back, are where they were drawn.
    assert [rows.min() * 4, (rows.max() + 1) * 4, columns.min() * 4, (columns.max() + 1) * 4] == [200, 240, 400, 480]


def test_what_needs_much_memory_is_deferred(tmp_path, monkeypatch):
    Image.new("RGB", (512, 512)).save(tmp_path / "a.png")
    monkeypatch.setattr(decoding, "LARGE_BYTES", 2**20)
    assert _decode(tmp_path / "a.png", allow_large=False) == Deferred()
    assert isinstance(_decode(tmp_path / "a.png", allow_large=True), Decoded)


HUGE = """
import re, sys
from pathlib import Path
from perception.inference.images.decoding import InputSize, decode
from perception.inference.scan import Source
def peak():
    # getrusage would count what the parent held when it forked.
    return int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) // 1024
before = peak()
decoded = decode(Source.of_file("a", Path(sys.argv[1]), 0), InputSize(640, 640, True), False)
print(decoded.pixels.shape, decoded.width, decoded.factor, peak() - before)
print([name for name in ("torch", "mmengine", "mmcv", "cv2") if name in sys.modules])
"""


def test_a_144_megapixel_photograph_takes_little_memory(tmp_path):
    Image.new("RGB", (12_000, 12_000), (200, 30, 60)).save(tmp_path / "huge.jpg", quality=80)
    report = subprocess.run(
        [sys.executable, "-c", HUGE, tmp_path / "huge.jpg"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    *sizes, megabytes = report[0].rsplit(" ", 1)
    assert sizes == ["(3000, 3000, 3) 12000 4"]
    assert int(megabytes) < 200  # decoded in full it is 576 MB in PIL and 432 MB as an array
    assert report[1] == "[]"  # a worker process must stay small
