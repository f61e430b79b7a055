"""Numbers at voxels and long masks are coded without loss, and damage is found out."""

import numpy as np
import pytest

from perception.radiance.bit_coding import decode_bits, encode_bits
from perception.radiance.entropy_coding import CorruptStream
from perception.radiance.integer_coding import pack_low_bits, tokens_of, unpack_low_bits, values_of
from perception.radiance.row_coding import DENSITY, Known, decode_rows, encode_rows, sh_columns

SHAPE = (9, 8, 7)


def values(count: int, kind: type = np.float16) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    index = np.sort(rng.choice(np.prod(SHAPE), count, replace=False))
    return index, rng.normal(0, 0.2, (count, 27)).astype(kind)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("count", [0, 1, 5, 400])
def test_rows_come_back(kind, count):
    index, numbers = values(count, kind)
    if count:
        numbers[0, :4] = [0.0, -0.0, np.finfo(kind).max, np.finfo(kind).smallest_subnormal]
    start = np.random.default_rng(1).normal(0, 0.2, (count, 27)).astype(np.float32)
    back = decode_rows(encode_rows(numbers, index, SHAPE, sh_columns(), start), index, SHAPE, sh_columns(), start)
    assert back.astype(kind).tobytes() == numbers.tobytes()


def test_fixed_point_is_found():
    index, numbers = values(400)
    rounded = (np.round(numbers.astype(np.float32) * 64) / 64 + 0.0).astype(np.float16)
    coded = encode_rows(rounded, index, SHAPE, sh_columns())
    assert len(coded) < 0.6 * len(encode_rows(numbers, index, SHAPE, sh_columns()))
    assert (decode_rows(coded, index, SHAPE, sh_columns()) == rounded).all()


def test_neighbours_that_are_known_help():
    index = np.arange(np.prod(SHAPE))
    place = np.stack(np.unravel_index(index, SHAPE), -1)
    smooth = (np.round((np.sin(place.sum(1) * 0.1) + 2)[:, None] * 512) / 512).astype(np.float32)
    even = place.sum(1) % 2 == 0
    known = Known(index[even], smooth[even])
    args = (smooth[~even], index[~even], SHAPE, DENSITY)
    alone, helped = encode_rows(*args), encode_rows(*args, known=known)
    assert len(helped) < len(alone)
    assert (decode_rows(helped, *args[1:], known=known) == smooth[~even]).all()


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_are_finite(number):
    index, numbers = values(5)
    numbers[2, 3] = number
    with pytest.raises(ValueError, match="not finite"):
        encode_rows(numbers, index, SHAPE, sh_columns())


def test_damage_is_found():
    index, numbers = values(400)
    coded = encode_rows(numbers, index, SHAPE, sh_columns())
    for bad in (coded[:3], coded[:-1], coded + b"x", b"\x07" + coded[1:]):
        with pytest.raises(CorruptStream):
            decode_rows(bad, index, SHAPE, sh_columns())


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 4001])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.4, 1.0])
def test_bits_come_back(count, share):
    rng = np.random.default_rng(count)
    bits, reference = rng.random(count) < share, rng.random(count) < 0.5
    assert (decode_bits(encode_bits(bits, period=64), count=count) == bits).all()
    changed = reference ^ bits
    assert (decode_bits(encode_bits(changed, reference), reference, count=count) == changed).all()


def test_damaged_bits_are_found():
    coded = encode_bits(np.random.default_rng(0).random(5000) < 0.01)
    for bad in (coded[:5], coded[:-1], b"\x05" + coded[1:]):
        with pytest.raises(CorruptStream):
            decode_bits(bad, count=5000)
    with pytest.raises(CorruptStream):
        decode_bits(coded, count=100)


def test_repeating_masks_are_deflated():
    row = np.random.default_rng(0).random(4096) < 0.5
    bits = np.tile(row, 50)
    coded = encode_bits(bits)
    assert len(coded) < 2000
    assert (decode_bits(coded, count=len(bits)) == bits).all()
    for bad in (coded[:-1], coded + b"x", coded[:40] + b"??" + coded[42:]):
        with pytest.raises(CorruptStream):
            decode_bits(bad, count=len(bits))
    for other in (len(bits) - 64, len(bits) + 64):
        with pytest.raises(CorruptStream, match="another length"):
            decode_bits(coded, count=other)


def test_integers_as_tokens():
    numbers = np.array([0, 1, 7, 8, 9, 255, 256, 12345, 2**31, 2**39 + 5])
    tokens, width = tokens_of(numbers)
    assert (values_of(tokens, width, unpack_low_bits(pack_low_bits(numbers, width), width)) == numbers).all()
