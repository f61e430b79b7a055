"""The entropy coders restore what they are given, come near the entropy, and notice damage."""

import contextlib
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.radiance import entropy_coding
from perception.radiance.entropy_coding import CorruptStream, decode, encode
from perception.radiance.octree_coding import decode_mask, encode_mask, neighbour_counts


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=400), st.integers(1, 5), st.integers(1, 40))
def test_any_symbols_come_back(symbols, contexts, steps):
    symbols = np.array(symbols, np.int64)
    context = np.arange(len(symbols)) % contexts
    original = entropy_coding.STEPS
    entropy_coding.STEPS = steps  # few symbols in many coders, too
    try:
        coded = encode(symbols, context)
    finally:
        entropy_coding.STEPS = original
    assert np.array_equal(decode(coded, context, count=len(symbols)), symbols)


def entropy_bytes(symbols):
    share = np.bincount(symbols) / len(symbols)
    share = share[share > 0]
    return -(share * np.log2(share)).sum() * len(symbols) / 8


@pytest.mark.parametrize("kind", ["normal", "skewed", "constant", "uniform"])
def test_comes_near_the_entropy(kind):
    rng = np.random.default_rng(0)
    symbols = {
        "normal": lambda: np.clip(np.round(rng.normal(128, 15, 50_000)), 0, 255).astype(int),
        "skewed": lambda: rng.geometric(0.9, 50_000),
        "constant": lambda: np.full(50_000, 7),
        "uniform": lambda: rng.integers(0, 4096, 50_000),
    }[kind]()
    size, least = len(encode(symbols)), entropy_bytes(symbols)
    tables = 5000 if kind == "uniform" else 400  # a byte per symbol at most, and the coders' states
    assert least - 1 <= size <= 1.01 * least + tables


def test_contexts_pay():
    rng = np.random.default_rng(0)
    context = rng.integers(0, 2, 20_000)
    symbols = np.where(context == 1, rng.integers(0, 4, 20_000), rng.integers(100, 104, 20_000))
    assert len(encode(symbols, context)) < 0.7 * len(encode(symbols))


def test_damage_is_noticed():
    symbols = np.random.default_rng(0).integers(0, 50, 3000)
    coded = encode(symbols)
    for wrong in (coded[:10], coded[:-2], coded + b"\0\0", b"\xff" * len(coded)):
        with pytest.raises(CorruptStream):
            decode(wrong, count=3000)
    with pytest.raises(CorruptStream):
        decode(coded, count=2999)
    for position in range(20, len(coded), 97):
        flipped = bytearray(coded)
        flipped[position] ^= 0x10
        with contextlib.suppress(CorruptStream):  # noticed, or at least not the same
            assert not np.array_equal(decode(bytes(flipped), count=3000), symbols)


def test_impossible_symbols_are_refused():
    with pytest.raises(ValueError, match="symbols"):
        encode(np.array([-1, 2]))
    with pytest.raises(ValueError, match="contexts"):
        encode(np.array([1, 2]), np.array([0]))


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 4), (17, 9, 30), (8, 8, 8)])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_masks_come_back(shape, share):
    mask = np.random.default_rng(1).random(shape) < share
    assert np.array_equal(decode_mask(encode_mask(mask), shape), mask)


def test_ragged_bodies_take_few_bytes():
    x, y, z = np.mgrid[-1:1:96j, -1:1:96j, -1:1:96j]
    radius = np.sqrt(x**2 + y**2 + z**2) + 0.05 * np.sin(9 * x) * np.cos(8 * y)
    shell = (np.abs(radius - 0.6) < 0.03) & (np.random.default_rng(0).random(x.shape) < 0.9)
    assert len(encode_mask(shell)) < 0.9 * len(zlib.compress(np.packbits(shell).tobytes(), 9))


def test_neighbours_are_counted_across_faces_only():
    mask = np.zeros((3, 3, 3), bool)
    mask[1, 1, 1] = mask[0, 0, 1] = True
    counts = neighbour_counts(mask)
    assert counts[1, 1, 1] == 0
    assert counts[0, 1, 1] == counts[1, 0, 1] == 2
    assert counts.sum() == 6 + 4


def test_damaged_masks_are_noticed():
    coded = encode_mask(np.random.default_rng(2).random((9, 9, 9)) < 0.3)
    for wrong in (b"", coded[:-1], coded + b"\0", b"\x07" + coded[1:]):
        with pytest.raises(CorruptStream):
            decode_mask(wrong, (9, 9, 9))
