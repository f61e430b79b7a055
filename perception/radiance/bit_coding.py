"""Long arrays of bits that are nearly constant: where their bytes are not 0, and what they are there.

Masks of 75 million voxels are coded in a fraction of a second, since all that looks at every voxel is one pass of
NumPy's packing of bits; :mod:`~perception.radiance.octree_coding` takes fewer bytes where time does not matter.
Where there is no reference, the packed bits are deflated as well, and what takes fewer bytes is kept: rows of voxels
that repeat far away, as in smooth shells, are what deflate finds.
"""

from __future__ import annotations

import struct
import zlib
from itertools import pairwise

import numpy as np

from perception.radiance.entropy_coding import CorruptStream, decode, encode
from perception.radiance.integer_coding import pack_low_bits, token_widths, tokens_of, unpack_low_bits, values_of

HEADER = struct.Struct("<BIIIII")  # form, period, bytes that are not 0, coded bytes of gaps, low bits and values
PLAIN, SPARSE, DEFLATED = 0, 1, 2
DENSE_SHARE = 0.5  # of bytes that are not 0, above which all of them are coded


def encode_bits(bits: np.ndarray, reference: np.ndarray | None = None, *, period: int = 0) -> bytes:
    """Code bits (n,) bool.

    Args:
        bits: what to code.
        reference: bits (n,) that the decoder has as well, and that are mostly the same.
        period: a number of bits after which they are mostly what they were, as the length of a row of voxels is; it is
            used where it helps, and where it is a multiple of 8.

    Example:
        >>> bits = np.arange(100_000) // 3_000 % 2 == 0
        >>> coded = encode_bits(bits)
        >>> len(coded) < 3_000, bool((decode_bits(coded, count=100_000) == bits).all())
        (True, True)
    """
    packed = np.packbits(np.asarray(bits, bool).ravel())
    if reference is not None:
        return _coded(packed ^ np.packbits(np.asarray(reference, bool).ravel()), period)
    coded, deflated = _coded(packed, period), zlib.compress(packed)
    if HEADER.size + len(deflated) < len(coded):
        return HEADER.pack(DEFLATED, 0, 0, 0, 0, 0) + deflated
    return coded


def _coded(packed: np.ndarray, period: int) -> bytes:
    """Code bytes (n,) by the entropy coders alone."""
    lag = period // 8 if period > 0 and period % 8 == 0 and len(packed) > period // 8 else 0
    if lag:
        shifted = packed.copy()
        shifted[lag:] ^= packed[:-lag]
        if np.count_nonzero(shifted) < np.count_nonzero(packed):
            packed = shifted
        else:
            lag = 0
    places = np.flatnonzero(packed != 0)
    if len(places) > DENSE_SHARE * len(packed):
        return HEADER.pack(PLAIN, lag, len(places), 0, 0, 0) + encode(packed)
    gaps = np.diff(places, prepend=-1) - 1
    tokens, width = tokens_of(gaps)
    parts = [encode(tokens), pack_low_bits(gaps, width), encode(packed[places], tokens.clip(max=2))]
    return HEADER.pack(SPARSE, lag, len(places), *map(len, parts)) + b"".join(parts)


def decode_bits(data: bytes, reference: np.ndarray | None = None, *, count: int) -> np.ndarray:
    """Restore bits (count,) bool, given the same reference.

    Raises:
        CorruptStream: the bytes do not fit.
    """
    if len(data) < HEADER.size:
        raise CorruptStream("the coded bits end within their header")
    form, lag, filled, *sizes = HEADER.unpack_from(data)
    length = -(-count // 8)
    if form not in (PLAIN, SPARSE, DEFLATED) or filled > length or lag > length:
        raise CorruptStream("the coded bits begin with an impossible header")
    if form == DEFLATED:
        packed = _inflated(data[HEADER.size :], length)
    elif form == PLAIN:
        packed = _bytes(decode(data[HEADER.size :], count=length))
    else:
        packed = _sparse(data, sizes, filled, length)
    if lag:
        packed = _accumulate(packed, lag)
    if count % 8 and packed[-1] & ((1 << (8 - count % 8)) - 1):
        raise CorruptStream("the coded bits reach beyond their end")
    if reference is not None:
        packed ^= np.packbits(np.asarray(reference, bool).ravel())
    return np.unpackbits(packed, count=count).view(bool)


def _inflated(data: bytes, length: int) -> np.ndarray:
    """Bytes (length,), of which no more are ever unpacked than that."""
    inflater = zlib.decompressobj()
    try:
        packed = inflater.decompress(data, length + 1)
    except zlib.error as error:
        raise CorruptStream(f"the deflated bits are damaged: {error}") from None
    if len(packed) != length or not inflater.eof or inflater.unused_data:
        raise CorruptStream("the deflated bits have another length than they should")
    return np.frombuffer(bytearray(packed), np.uint8)


def _sparse(data: bytes, sizes: list[int], filled: int, length: int) -> np.ndarray:
    ends = np.cumsum([HEADER.size, *sizes]).tolist()
    if ends[-1] != len(data):
        raise CorruptStream("the coded bits have another length than they say")
    gap_tokens, low, values = (data[start:end] for start, end in pairwise(ends))
    tokens = decode(gap_tokens, count=filled)
    width = token_widths(tokens)
    places = np.cumsum(values_of(tokens, width, unpack_low_bits(low, width)) + 1) - 1
    if filled and not 0 <= int(places[-1]) < length:
        raise CorruptStream("the coded bits reach beyond their end")
    packed = np.zeros(length, np.uint8)
    packed[places] = _bytes(decode(values, tokens.clip(max=2), count=filled))
    return packed


def _bytes(symbols: np.ndarray) -> np.ndarray:
    if len(symbols) and int(symbols.max()) > 255:
        raise CorruptStream("a byte of more than 8 bits")
    return symbols.astype(np.uint8)


def _accumulate(packed: np.ndarray, lag: int) -> np.ndarray:
    """Each byte XOR the result ``lag`` bytes before it."""
    padded = np.zeros(-(-len(packed) // lag) * lag, np.uint8)
    padded[: len(packed)] = packed
    return np.bitwise_xor.accumulate(padded.reshape(-1, lag), 0).reshape(-1)[: len(packed)].copy()
