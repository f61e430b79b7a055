"""Integers of any size as small symbols, which an entropy coder takes, and the bits that these leave open."""

from __future__ import annotations

import numpy as np

from perception.radiance.entropy_coding import CorruptStream

EXACT = 8  # smaller integers are symbols of their own
MAX_WIDTH = 40  # bits of an integer


def tokens_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The symbol of each integer (n,) in [0, 2**40), int64, and how many of its low bits the symbol leaves open.

    From 8 on, a symbol stands for the length of the integer in bits and the two bits below the leading one.
    """
    length = np.frexp(np.maximum(values, 1).astype(np.float64))[1].astype(np.int64)  # exact below 2**53
    width = np.where(values < EXACT, 0, length - 3)
    return np.where(values < EXACT, values, EXACT + (length - 4) * 4 + (values >> width & 3)), width


def token_widths(tokens: np.ndarray) -> np.ndarray:
    """How many bits the symbols (n,) of :func:`tokens_of` leave open.

    Raises:
        CorruptStream: a symbol stands for no integer.
    """
    width = np.where(tokens < EXACT, 0, (tokens - EXACT) // 4 + 1)
    if len(width) and int(width.max()) > MAX_WIDTH:
        raise CorruptStream("a coded integer is too large")
    return width


def values_of(tokens: np.ndarray, width: np.ndarray, low: np.ndarray) -> np.ndarray:
    """The integers (n,) of symbols and the bits that these left open."""
    leading = 4 + (tokens - EXACT) % 4
    return np.where(tokens < EXACT, tokens, (leading << width) | low)


def pack_low_bits(values: np.ndarray, width: np.ndarray) -> bytes:
    """The lowest ``width`` (n,) bits of integers (n,), all of one width together."""
    parts = []
    for bits in range(1, int(width.max(initial=0)) + 1):
        chosen = values[width == bits]
        if len(chosen):
            planes = (chosen[:, None] >> np.arange(bits)[::-1]) & 1
            parts.append(np.packbits(planes.astype(bool)).tobytes())
    return b"".join(parts)


def unpack_low_bits(data: bytes, width: np.ndarray) -> np.ndarray:
    """What :func:`pack_low_bits` packed, int64 (n,).

    Raises:
        CorruptStream: there are more or fewer bytes.
    """
    values, position = np.zeros(len(width), np.int64), 0
    packed = np.frombuffer(data, np.uint8)
    for bits in range(1, int(width.max(initial=0)) + 1):
        chosen = (width == bits).nonzero()[0]
        size = -(-len(chosen) * bits // 8)
        part = packed[position : position + size]
        if len(part) != size:
            raise CorruptStream("the low bits of integers end too early")
        planes = np.unpackbits(part, count=len(chosen) * bits).reshape(-1, bits)
        total = np.zeros(len(chosen), np.int64)
        for plane in planes.T:
            total = total << 1 | plane
        values[chosen] = total
        position += size
    if position != len(packed):
        raise CorruptStream("there are low bits of integers left over")
    return values
