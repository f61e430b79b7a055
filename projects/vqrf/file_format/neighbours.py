"""Codewords of neighbouring voxels are often the same: say which voxels repeat a neighbour, store only the others."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from perception.radiance.entropy_coding import CorruptStream, decode, encode

NONE, Z, Y, X = 0, 1, 2, 3  # which preceding neighbour a voxel repeats
SIZE_BYTES = 4


def preceding_neighbours(voxels: np.ndarray) -> np.ndarray:
    """For each set voxel of a grid (X, Y, Z) bool, in order: which set voxel lies before it along z, y and x.

    Returns:
        (3, n) int64 numbers among the set voxels, -1 where there is none.
    """
    number = np.full(voxels.shape, -1, np.int64)
    number[voxels] = np.arange(int(voxels.sum()))
    found = []
    for axis in (2, 1, 0):
        shifted = np.full_like(number, -1)
        ahead = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        behind = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        shifted[ahead] = number[behind]
        found.append(shifted[voxels])
    return np.stack(found)


def encode_codes(codes: np.ndarray, voxels: np.ndarray) -> bytes:
    """Code one symbol per set voxel of a grid (X, Y, Z), in order."""
    before = preceding_neighbours(voxels)
    repeated = np.zeros(len(codes), np.int64)
    for kind, neighbour in zip((X, Y, Z), before[::-1]):
        repeated[(neighbour >= 0) & (codes[neighbour] == codes)] = kind
    kinds = encode(repeated, _present(before))
    return len(kinds).to_bytes(SIZE_BYTES, "little") + kinds + encode(codes[repeated == NONE])


def decode_codes(data: bytes, voxels: np.ndarray) -> np.ndarray:
    """Restore the symbols of :func:`encode_codes`.

    Raises:
        CorruptStream: the bytes do not fit.
    """
    before = preceding_neighbours(voxels)
    count = before.shape[1]
    size = int.from_bytes(data[:SIZE_BYTES], "little")
    repeated = decode(data[SIZE_BYTES : SIZE_BYTES + size], _present(before), count=count)
    if len(repeated) and repeated.max() > X:
        raise CorruptStream("a voxel repeats an unknown neighbour")
    literal = repeated == NONE
    source = np.arange(count)
    source[~literal] = before[repeated[~literal] - 1, np.flatnonzero(~literal)]
    if len(source) and source.min() < 0:
        raise CorruptStream("a voxel repeats a neighbour that is not there")
    # Every chain of repetitions leads to an earlier voxel: halving its length each time ends at the stored one.
    while not bool(literal[source].all()):
        source = source[source]
    codes = np.zeros(count, np.int64)
    codes[literal] = decode(data[SIZE_BYTES + size :], count=int(literal.sum()))
    return codes[source]


def _present(before: np.ndarray) -> np.ndarray:
    """Which of the three neighbours are there, as a number below 8."""
    return ((before >= 0) * np.array([[1], [2], [4]])).sum(0)


def encode_differences(numbers: np.ndarray, voxels: np.ndarray) -> bytes:
    """Code 8-bit numbers, one per set voxel, as differences along z."""
    previous = preceding_neighbours(voxels)[0]
    differences = numbers - np.where(previous >= 0, numbers[previous], 0)
    return encode(differences % 256, previous >= 0)


def decode_differences(data: bytes, voxels: np.ndarray) -> np.ndarray:
    """Restore the numbers, in [-128, 128), of :func:`encode_differences`.

    Raises:
        CorruptStream: the bytes do not fit.
    """
    previous = preceding_neighbours(voxels)[0]
    differences = decode(data, previous >= 0, count=len(previous))
    if not len(differences):
        return differences
    total = differences.cumsum()
    first = np.flatnonzero(previous < 0)  # of each run along z
    base = (total - differences)[first]
    run = np.cumsum(previous < 0) - 1
    return (total - base[run] + 128) % 256 - 128


def vq_voxels(context: dict) -> np.ndarray:
    """The quantised voxels (X, Y, Z) bool, from what a decoder knows after `non_prune` and `keep`."""
    quantised = context["non_prune"].clone()
    quantised[context["non_prune"]] = ~context["keep"]
    return quantised.view(context["shape"]).numpy()


def remaining_voxels(context: dict) -> np.ndarray:
    """The remaining voxels (X, Y, Z) bool."""
    remaining: Tensor = context["non_prune"]
    return remaining.view(context["shape"]).numpy()
