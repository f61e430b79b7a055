"""Which voxels of a grid are set, as an octree of occupancy bytes: few bytes where they form bodies."""

from __future__ import annotations

import itertools
import struct

import numpy as np

from perception.radiance.entropy_coding import CorruptStream, decode, encode

LEVEL = struct.Struct("<I")  # coded bytes of a level


def encode_mask(mask: np.ndarray) -> bytes:
    """Code a mask (X, Y, Z) bool.

    From the root down, every occupied cube says which of its eight halves are occupied, in the context of how many of
    its six face neighbours are.
    """
    levels = _pyramid(mask)
    parts = []
    for parent, child in itertools.pairwise(levels):
        occupied = np.argwhere(parent)
        symbols = _child_bits(child, occupied)
        coded = encode(symbols - 1, neighbour_counts(parent)[tuple(occupied.T)])
        parts.append(LEVEL.pack(len(coded)) + coded)
    return (b"\x01" if levels[0].any() else b"\x00") + b"".join(parts)


def decode_mask(data: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """Restore the mask of :func:`encode_mask`.

    Raises:
        CorruptStream: the bytes do not fit.
    """
    depth = _depth(shape)
    if not data or data[0] > 1:
        raise CorruptStream("the coded mask does not begin as one")
    cube, position = np.full((1, 1, 1), bool(data[0])), 1
    for _ in range(depth):
        occupied = np.argwhere(cube)
        if len(data) < position + LEVEL.size:
            raise CorruptStream("the coded mask ends too early")
        (size,) = LEVEL.unpack_from(data, position)
        position += LEVEL.size
        coded = data[position : position + size]
        position += size
        symbols = decode(coded, neighbour_counts(cube)[tuple(occupied.T)], count=len(occupied)) + 1
        if len(symbols) and symbols.max() > 255:
            raise CorruptStream("the coded mask holds an impossible byte")
        child = np.zeros([2 * len(cube)] * 3, bool)
        for bit, (i, j, k) in enumerate(np.ndindex(2, 2, 2)):
            set_here = occupied[(symbols >> bit & 1).astype(bool)] * 2 + (i, j, k)
            child[tuple(set_here.T)] = True
        cube = child
    if position != len(data):
        raise CorruptStream("the coded mask has bytes left over")
    inside = tuple(slice(0, size) for size in shape)
    result = np.ascontiguousarray(cube[inside])
    if result.sum() != cube.sum():
        raise CorruptStream("the coded mask reaches beyond its grid")
    return result


def neighbour_counts(mask: np.ndarray) -> np.ndarray:
    """How many of the six face neighbours of each cell (X, Y, Z) are set: int64."""
    padded = np.pad(mask, 1).astype(np.int64)
    centre = slice(1, -1)
    return sum(
        padded[tuple(slice(1 + step, padded.shape[a] - 1 + step) if a == axis else centre for a in range(3))]
        for axis in range(3)
        for step in (-1, 1)
    )


def _depth(shape: tuple[int, int, int]) -> int:
    return max(0, int(max(shape) - 1).bit_length())


def _pyramid(mask: np.ndarray) -> list[np.ndarray]:
    """From the root (1, 1, 1) to the mask, padded to a cube whose side is a power of two."""
    side = 1 << _depth(mask.shape)
    cube = np.zeros((side,) * 3, bool)
    cube[tuple(slice(0, size) for size in mask.shape)] = mask
    levels = [cube]
    while len(levels[0]) > 1:
        half = len(levels[0]) // 2
        levels.insert(0, levels[0].reshape(half, 2, half, 2, half, 2).any((1, 3, 5)))
    return levels


def _child_bits(child: np.ndarray, occupied: np.ndarray) -> np.ndarray:
    bits = np.zeros(len(occupied), np.int64)
    for bit, (i, j, k) in enumerate(np.ndindex(2, 2, 2)):
        bits |= child[tuple((occupied * 2 + (i, j, k)).T)].astype(np.int64) << bit
    return bits
