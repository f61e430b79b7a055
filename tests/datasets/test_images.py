"""The one reader of images: its pixels against what the published recipes' loaders gave, headers against pixels."""

import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import cv2
import numpy as np
import pytest
from PIL import Image

from perception.datasets.images import UnreadableImageError, open_without_limit, read_header, read_image


def _picture(height=41, width=67):
    """Smooth areas, edges and noise."""
    rng = np.random.default_rng(height)
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], -1)
    smooth[height // 3 : height // 2, width // 4 : width // 2] = (250, 20, 40)
    return (smooth + rng.integers(-20, 21, smooth.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        *((".jpg", {"quality": q, "subsampling": s, "progressive": p}) for q, s, p in
          ((75, 2, False), (95, 0, False), (50, 1, True), (90, 2, True))),
        (".png", {}), (".bmp", {}), (".tif", {"compression": "tiff_lzw"}),
    ],
)  # fmt: skip
def test_ordinary_files_have_the_pixels_of_the_stock_loaders(tmp_path, mode, suffix, options):
    from mmcv.transforms import LoadImageFromFile

    if mode == "L":
        options = {key: value for key, value in options.items() if key != "subsampling"}
    Image.fromarray(_picture()).convert(mode).save(tmp_path / f"a{suffix}", **options)
    pixels = read_image(tmp_path / f"a{suffix}")
    for backend in ("cv2", "pillow"):
        stock = LoadImageFromFile(imdecode_backend=backend)({"img_path": str(tmp_path / f"a{suffix}")})["img"]
        assert np.array_equal(stock[..., ::-1], pixels), backend


def _with_exif(image, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = BytesIO()
    options = {".jpg": {"quality": 95}, ".webp": {"lossless": True}, ".avif": {"quality": 100}}.get(suffix, {})
    image.save(buffer, {".jpg": "JPEG", ".tif": "TIFF"}.get(suffix, suffix[1:].upper()), exif=exif, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_headers_agree_with_pixels(tmp_path, suffix, orientation):
    (tmp_path / f"a{suffix}").write_bytes(_with_exif(Image.fromarray(_picture()), orientation, suffix))
    pixels, header = read_image(tmp_path / f"a{suffix}"), read_header(tmp_path / f"a{suffix}")
    assert pixels.shape[:2] == (header.height, header.width) == ((41, 67) if orientation < 5 else (67, 41))
    if suffix == ".jpg":
        assert np.array_equal(pixels, cv2.imread(str(tmp_path / "a.jpg"))[..., ::-1])


# How the rows and columns that are stored become those that are seen, by EXIF's definition.
SEEN = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x.swapaxes(0, 1)[:, ::-1],
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x.swapaxes(0, 1)[::-1],
}


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "I;16"])
@pytest.mark.parametrize(("suffix", "compression"), [(".png", None), (".tif", None), (".tif", "tiff_lzw")])
def test_lossless_files_are_turned_by_definition(tmp_path, mode, suffix, compression):
    stored = _picture() if mode.startswith("RGB") else _picture()[..., :1].repeat(3, 2)
    image = Image.fromarray(stored).convert(mode if mode != "I;16" else "L")
    if mode == "I;16":
        image = Image.fromarray(stored[..., 0].astype(np.uint16) * 256)
    for orientation, seen in SEEN.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(tmp_path / f"a{suffix}", exif=exif, **({"compression": compression} if compression else {}))
        assert np.array_equal(read_image(tmp_path / f"a{suffix}"), seen(stored)), orientation


def test_an_orientation_behind_the_pixels_of_a_png_is_found(tmp_path):
    content = _with_exif(Image.fromarray(_picture()), 6, ".png")
    start = content.index(b"eXIf") - 4
    end = start + 12 + struct.unpack(">I", content[start : start + 4])[0]
    chunk, without = content[start:end], content[:start] + content[end:]
    last = without.index(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(without[:last] + chunk + without[last:])
    header = read_header(tmp_path / "a.png")
    assert (header.width, header.height) == (41, 67)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.rot90(_picture(), -1))
    # Its header can be read although the pixels cannot.
    damaged = (tmp_path / "a.png").read_bytes().replace(b"IDAT", b"IDAX")
    (tmp_path / "b.png").write_bytes(damaged)
    with pytest.raises(UnreadableImageError):
        read_image(tmp_path / "b.png")


def _png(width, height, body):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def test_what_cannot_be_read_has_a_reason(tmp_path):
    cases = {
        "empty.png": (b"", "empty file"),
        "words.jpg": (b"<html>404</html>", "not an image"),
        "bomb.png": (_png(60_000, 60_000, b""), "60000 x 60000 pixels are more than"),
    }
    for name, (content, reason) in cases.items():
        (tmp_path / name).write_bytes(content)
        for read in (read_image, read_header):
            with pytest.raises(UnreadableImageError, match=reason):
                read(tmp_path / name)
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    for read in (read_image, read_header):
        with pytest.raises(UnreadableImageError, match="floating-point samples, whose white level is not defined"):
            read(tmp_path / "float.tif")
        with pytest.raises(UnreadableImageError, match="No such file or directory"):
            read(tmp_path / "missing.png")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_become_their_upper_eight(tmp_path, suffix):
    grey = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    colour = _picture().astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / f"grey{suffix}"), grey)
    cv2.imwrite(str(tmp_path / f"colour{suffix}"), colour[..., ::-1])
    assert np.array_equal(read_image(tmp_path / f"grey{suffix}"), np.repeat((grey >> 8)[..., None], 3, 2))
    assert np.array_equal(read_image(tmp_path / f"colour{suffix}"), _picture())


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_alpha_is_dropped_and_what_it_hides_counts(tmp_path, suffix):
    image = Image.fromarray(_picture())
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(tmp_path / f"a{suffix}", **({"lossless": True, "exact": True} if suffix == ".webp" else {}))
    assert np.array_equal(read_image(tmp_path / f"a{suffix}"), _picture())


def test_colour_profiles_are_not_applied(tmp_path):
    from PIL import ImageCms

    # A profile that takes the channels for those of a much wider space would change every colour.
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(_picture()).save(tmp_path / "a.png", icc_profile=profile.replace(b"rXYZ", b"gXYZ", 1))
    assert np.array_equal(read_image(tmp_path / "a.png"), _picture())


def test_pils_limit_is_off_while_files_are_opened_and_then_what_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.fromarray(_picture()).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")

    def size(_):
        with open_without_limit(tmp_path / "a.png") as image:
            return image.size

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(size, range(400))) == {(67, 41)}
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(UnreadableImageError):
        read_header(tmp_path / "b.png")
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / "a.png")
