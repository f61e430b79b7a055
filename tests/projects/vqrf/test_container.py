"""The file: it restores every bit, its parts add up, and anything else is refused with a sentence."""

import hashlib
import subprocess
import sys
import zlib
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from perception.engine import framed_file
from perception.engine.errors import UserError
from projects.vqrf.compression import field_of
from projects.vqrf.file_format import container
from projects.vqrf.file_format.neighbours import decode_codes, decode_differences, encode_codes, encode_differences
from projects.vqrf.file_format.parts import BYTE_CODERS, PARTS, RANS_FORMS, decode_part, encode_part
from tests.projects.vqrf.cases import compressed_field


def assert_equal(first, second):
    for entry in fields(first):
        one, two = getattr(first, entry.name), getattr(second, entry.name)
        if isinstance(one, torch.Tensor):
            assert torch.equal(one, two), entry.name
            assert one.dtype == two.dtype, entry.name
        elif entry.name in ("density", "kept"):
            assert torch.equal(one.values, two.values)
            assert one[1:] == two[1:]
        elif entry.name == "rgbnet":
            assert one.keys() == two.keys()
            assert all(torch.equal(value, two[name]) for name, value in one.items())
        else:
            assert one == two, entry.name


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_file_restores_every_bit(tmp_path, keep):
    _, compressed = compressed_field(keep=keep)
    size = container.write(tmp_path / "field.vqrf", compressed)
    assert size == (tmp_path / "field.vqrf").stat().st_size
    assert_equal(container.read(tmp_path / "field.vqrf"), compressed)
    assert sum(part.stored_bytes for part in container.report(tmp_path / "field.vqrf")) == size


@pytest.mark.parametrize("part", PARTS)
def test_every_coder_restores_its_part(part):
    _, compressed = compressed_field()
    values, context = container._part_values(compressed), container._context_of(compressed)
    for name in PARTS[: PARTS.index(part)]:
        context[name] = values[name]
    best, data, sizes = encode_part(part, values[part], context)
    assert len(data) == min(sizes.values()) == sizes[best]
    from projects.vqrf.file_format.parts import RAW_FORM

    for coder, (pack, _) in BYTE_CODERS.items():
        coded = pack(RAW_FORM[part][0](values[part], context))
        assert torch.equal(decode_part(part, coder, coded, context), values[part]), coder
    for coder, (pack, _) in RANS_FORMS[part].items():
        assert torch.equal(decode_part(part, coder, pack(values[part], context), context), values[part]), coder


def test_another_process_renders_the_same_pixels(tmp_path):
    _, compressed = compressed_field()
    container.write(tmp_path / "field.vqrf", compressed)
    program = (
        "import sys, torch; from pathlib import Path\n"
        "from projects.vqrf.file_format import container; from projects.vqrf.compression import field_of\n"
        "torch.set_num_threads(1)\n"
        "field = field_of(container.read(Path(sys.argv[1]))); rays = torch.load(sys.argv[2], weights_only=True)\n"
        "torch.save(field(*rays, near=0.5)['rgb_marched'].detach(), sys.argv[3])\n"
    )
    rays_o = 3 * torch.nn.functional.normalize(torch.randn(200, 3), dim=-1)
    viewdirs = torch.nn.functional.normalize(torch.randn(200, 3) * 0.3 - rays_o, dim=-1)
    torch.save([rays_o, viewdirs, viewdirs], tmp_path / "rays.pt")
    names = [str(tmp_path / name) for name in ("field.vqrf", "rays.pt", "out.pt")]
    subprocess.run([sys.executable, "-c", program, *names], check=True, cwd=Path(__file__).parents[3])
    here = field_of(compressed)(rays_o, viewdirs, viewdirs, near=0.5)["rgb_marched"]
    there = torch.load(tmp_path / "out.pt", weights_only=True)
    assert float((there - 1).abs().max()) > 0.1  # it shows something
    assert torch.equal(here, there)


@pytest.fixture(scope="module")
def small_file(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    _, compressed = compressed_field(5**3, codebook_size=4)
    path = tmp_path_factory.mktemp("file") / "field.vqrf"
    container.write(path, compressed)
    return path


def test_a_flipped_bit_anywhere_is_refused(small_file, tmp_path):
    data, path = small_file.read_bytes(), tmp_path / "flipped.vqrf"
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        with pytest.raises(UserError, match=r"flipped\.vqrf"):
            container.read(path)


def test_a_file_cut_short_is_refused(small_file, tmp_path):
    data, path = small_file.read_bytes(), tmp_path / "short.vqrf"
    for length in (0, 5, 8, 13, 40, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match=r"cut short|not a \.vqrf file"):
            container.read(path)


def test_foreign_missing_and_newer_files_are_refused(small_file, tmp_path):
    (tmp_path / "foreign.vqrf").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(UserError, match=r"not a \.vqrf file"):
        container.read(tmp_path / "foreign.vqrf")
    with pytest.raises(UserError, match="cannot read"):
        container.read(tmp_path / "missing.vqrf")
    body = bytearray(small_file.read_bytes()[:-32])
    body[8] = 9
    (tmp_path / "newer.vqrf").write_bytes(bytes(body) + hashlib.sha256(body).digest())
    with pytest.raises(UserError, match="version 9"):
        container.read(tmp_path / "newer.vqrf")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"world_size": [5', b'"world_size": [99999999'),
        (b'"codebook": [4', b'"codebook": [99999999'),
        (b'"codebook": [4', b'"codebook": [-4'),
        (b'"octree"', b'"pickle"'),
        (b'["non_prune"', b'["density"'),
        (b'"world_size": [5', b'"world_size": ["x"'),
    ],
)
def test_a_hostile_header_is_refused(small_file, tmp_path, old, new):
    """A file with a right checksum whose header lies."""
    data = small_file.read_bytes()
    _, _, size = framed_file.PREFIX.unpack_from(data)
    header = zlib.decompress(data[framed_file.PREFIX.size : framed_file.PREFIX.size + size])
    if old == b'"octree"' and old not in header:
        old = b'"deflate"' if b'"deflate"' in header else b'"lzma"'
    assert old in header
    changed = zlib.compress(header.replace(old, new, 1))
    body = framed_file.PREFIX.pack(container.SIGNATURE, 1, len(changed)) + changed
    body += data[framed_file.PREFIX.size + size : -32]
    path = tmp_path / "hostile.vqrf"
    path.write_bytes(body + hashlib.sha256(body).digest())
    with pytest.raises(UserError, match=r"hostile\.vqrf is damaged"):
        container.read(path)


def test_repeated_codes_and_differences_come_back():
    rng = np.random.default_rng(0)
    for shape, share, kinds in (((6, 5, 7), 0.5, 3), ((1, 1, 1), 1.0, 1), ((4, 4, 4), 0.0, 2), ((9, 3, 8), 1.0, 2)):
        voxels = rng.random(shape) < share
        codes = rng.integers(0, kinds, int(voxels.sum()))
        assert np.array_equal(decode_codes(encode_codes(codes, voxels), voxels), codes)
        numbers = rng.integers(-128, 128, int(voxels.sum()))
        assert np.array_equal(decode_differences(encode_differences(numbers, voxels), voxels), numbers)


def test_repeats_pay_on_flat_surfaces():
    voxels = np.ones((12, 12, 12), bool)
    codes = np.repeat(np.random.default_rng(0).integers(0, 4000, 12), 144)
    assert len(encode_codes(codes, voxels)) < 400
