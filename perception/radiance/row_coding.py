"""Numbers at voxels of a sparse grid, without loss: each is predicted from what a decoder knows at that moment.

Voxels are coded in four passes, by which of their three indices are odd, so that later ones lie between earlier ones.
A number is predicted as a *baseline* (its value in the frame before, or 0) plus a share of how far the 26 neighbours
that are known already are from theirs, plus a share of how far the same coefficient of the colour before was off. What
is left is counted in steps between neighbouring floating-point numbers, or in multiples of a power of two where all
numbers are such, and coded (:mod:`.entropy_coding`) in the
context of the pass, the kind of coefficient and the step that the spread of the neighbours makes likely.

A decoder repeats the predictions bit by bit. They use additions, multiplications and roots of single precision alone,
each rounded as IEEE 754 says and in a fixed order, so that they are the same on every machine.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from perception.radiance.entropy_coding import CorruptStream, Histograms
from perception.radiance.integer_coding import pack_low_bits, token_widths, tokens_of, unpack_low_bits, values_of

HEADER = struct.Struct("<BBIB")  # bits of a number, binary places or FLOATING, bytes of histograms, kind of contexts
BLOCK = struct.Struct("<II")  # bytes of symbols, of low bits
FLOATING = 255
MAX_PLACES = 14  # of fixed-point numbers
SHARES = 64  # steps of a share from 0 to 1
BLOCK_ROWS = 1 << 16  # voxels that are coded at once
BUCKETS = 34  # lengths in bits of a likely step
TINY = np.float32(2.0**-40)
MINUS_ZERO = -(1 << 31)  # its bits as an integer
OFFSETS = tuple(offset for offset in itertools.product((-1, 0, 1), repeat=3) if any(offset))
# By which indices are odd: none, all, two, one.
PASS_OF_PARITY = np.array([0, 3, 3, 2, 3, 2, 2, 1])


@dataclass(frozen=True)
class Columns:
    """What the numbers of a voxel are.

    Args:
        groups: for each column, the kind of coefficient that it is, from 0.
        before: for each column, the column of the colour before it, or -1.
    """

    groups: tuple[int, ...]
    before: tuple[int, ...]

    @property
    def num_groups(self) -> int:
        """Number of kinds."""
        return max(self.groups) + 1

    def stages(self) -> list[np.ndarray]:
        """Columns that are decoded together: each needs those of stages before it alone."""
        depth = [0] * len(self.before)
        for column, other in enumerate(self.before):
            depth[column] = depth[other] + 1 if other >= 0 else 0
        return [np.flatnonzero(np.array(depth) == stage) for stage in range(max(depth) + 1)]


@dataclass(frozen=True)
class Known:
    """Voxels that a decoder knows.

    Args:
        index: flat indices (n,) in ascending order.
        difference: (n, columns) float32, their values less their baselines.
    """

    index: np.ndarray
    difference: np.ndarray


@dataclass(frozen=True)
class _Prediction:
    mean: np.ndarray  # (n, columns) of the neighbours' differences
    square: np.ndarray  # (n, groups) of their squares


def encode_rows(
    values: np.ndarray,
    index: np.ndarray,
    shape: tuple[int, int, int],
    columns: Columns,
    baseline: np.ndarray | None = None,
    known: Known | None = None,
) -> bytes:
    """Code numbers at voxels.

    Args:
        values: (n, columns) float16, or float32, of which halves are stored where that loses nothing.
        index: (n,) flat indices of the voxels in a grid, ascending.
        shape: of the grid.
        columns: what the columns are.
        baseline: (n, columns) float32, what the values are compared with; 0 by default.
        known: other voxels.

    Raises:
        ValueError: a number is not finite.
    """
    if not np.isfinite(values).all():
        raise ValueError("numbers that are not finite")
    scale = _Scale.of(values)
    walk = _Walk(index, shape, columns, known, scale)
    walk.difference[:] = values.astype(np.float32) - _or_zero(baseline, values)
    if not np.isfinite(walk.difference).all():
        raise ValueError("numbers too far apart for single precision")
    walk.choose_shares(values, baseline)
    tokens, contexts, low = [], [], []
    for rows in walk.blocks():
        prediction = walk.predict(rows)
        start = None if baseline is None else baseline[rows]
        steps, context = walk.steps(prediction, rows, start, values[rows])
        zigzag = np.where(steps < 0, -2 * steps - 1, 2 * steps).reshape(-1)
        token, bits = tokens_of(zigzag)
        tokens.append(token.astype(np.uint8))
        contexts.append(context.reshape(-1).astype(np.uint16))
        low.append(pack_low_bits(zigzag, bits))
        walk.done(rows)
    if not tokens:
        return HEADER.pack(*scale, 0, 0)
    coarse, histograms = _cheapest(np.concatenate(tokens), np.concatenate(contexts), columns.num_groups)
    tables = histograms.pack()
    parts = [HEADER.pack(*scale, len(tables), coarse), walk.shares.tobytes(), tables]
    for token, context, bits in zip(tokens, contexts, low):
        coded = histograms.encode(token, _merged(context.astype(np.int64), columns.num_groups, coarse))
        parts += [BLOCK.pack(len(coded), len(bits)), coded, bits]
    return b"".join(parts)


def decode_rows(
    data: bytes,
    index: np.ndarray,
    shape: tuple[int, int, int],
    columns: Columns,
    baseline: np.ndarray | None = None,
    known: Known | None = None,
) -> np.ndarray:
    """Restore the numbers (n, columns), float16 where they were stored as halves and float32 elsewhere.

    Raises:
        CorruptStream: the bytes do not fit.
    """
    if len(data) < HEADER.size:
        raise CorruptStream("the coded numbers end within their header")
    bits, places, table_bytes, coarse = HEADER.unpack_from(data)
    if bits not in (16, 32) or coarse not in MERGING or places not in (*range(MAX_PLACES + 1), FLOATING):
        raise CorruptStream("the coded numbers begin with an impossible header")
    walk = _Walk(index, shape, columns, known, _Scale(bits, places))
    values = np.zeros((len(index), len(columns.groups)), np.float16 if bits == 16 else np.float32)
    reader = _Reader(data, HEADER.size)
    if len(index):
        walk.shares = np.frombuffer(reader.take(walk.shares.nbytes), np.uint8).reshape(walk.shares.shape)
        histograms = Histograms.unpack(reader.take(table_bytes))
    for rows in walk.blocks():
        prediction = walk.predict(rows)
        start = None if baseline is None else baseline[rows]
        context = walk.contexts(prediction, rows, start)
        coded, low = (reader.take(size) for size in BLOCK.unpack(reader.take(BLOCK.size)))
        token = histograms.decode(coded, _merged(context.reshape(-1), columns.num_groups, coarse))
        width = token_widths(token)
        zigzag = values_of(token, width, unpack_low_bits(low, width))
        steps = np.where(zigzag & 1, -(zigzag >> 1) - 1, zigzag >> 1).reshape(len(rows), -1)
        values[rows] = walk.restore(prediction, rows, start, steps)
        walk.difference[rows] = values[rows].astype(np.float32) - _or_zero(start, values[rows])
        walk.done(rows)
    reader.finish()
    if not np.isfinite(values).all():
        raise CorruptStream("coded numbers that are not finite")
    return values


class _Walk:
    """The order of voxels, and what is known of them on the way."""

    def __init__(
        self, index: np.ndarray, shape: tuple[int, int, int], columns: Columns, known: Known | None, scale: _Scale
    ):
        self.index, self.shape, self.columns, self.scale = index, shape, columns, scale
        self.places = np.stack(np.unravel_index(index, shape), -1)
        self.passes = PASS_OF_PARITY[(self.places & 1) @ np.array([4, 2, 1])]
        self.is_known = np.zeros(len(index), bool)
        self.difference = np.zeros((len(index), len(columns.groups)), np.float32)
        self.known = known
        self.shares = np.zeros((2, len(columns.groups)), np.uint8)  # of neighbours, of the colour before
        self.group = np.array(columns.groups)
        self.stages = columns.stages()
        self._members = [np.flatnonzero(self.group == number) for number in range(columns.num_groups)]

    def blocks(self) -> Iterator[np.ndarray]:
        """Numbers of voxels that are coded at once, pass by pass."""
        for number in range(4):
            rows = np.flatnonzero(self.passes == number)
            yield from (rows[first : first + BLOCK_ROWS] for first in range(0, len(rows), BLOCK_ROWS))

    def done(self, rows: np.ndarray) -> None:
        """From now on, these are known."""
        self.is_known[rows] = True

    def predict(self, rows: np.ndarray) -> _Prediction:
        """What the neighbours of voxels have."""
        total = np.zeros((len(rows), self.difference.shape[1]), np.float32)
        square = np.zeros((len(rows), len(self._members)), np.float32)
        weight = np.zeros((len(rows), 1), np.float32)
        for offset in OFFSETS:
            near = np.float32(1 / sum(map(abs, offset)))
            place = self.places[rows] + offset
            inside = ((place >= 0) & (place < self.shape)).all(1)
            flat = (place @ np.array([self.shape[1] * self.shape[2], self.shape[2], 1]))[inside]
            inside = inside.nonzero()[0]
            for index, difference, usable in self._sources():
                at = np.searchsorted(index, flat).clip(max=len(index) - 1)
                hit = index[at] == flat
                if usable is not None:
                    hit &= usable[at]
                found, target = difference[at[hit]], inside[hit]
                total[target] += near * found
                square[target] += near * self._mean_square(found)
                weight[target] += near
        weight = np.maximum(weight, np.float32(1e-3))
        return _Prediction(total / weight, square / weight)

    def _sources(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        if len(self.index):
            yield self.index, self.difference, self.is_known
        if self.known is not None and len(self.known.index):
            yield self.known.index, self.known.difference, None

    def _mean_square(self, values: np.ndarray) -> np.ndarray:
        """(n, groups), added up column by column: sums of NumPy have no order that one can rely on."""
        result = np.zeros((len(values), len(self._members)), np.float32)
        for number, members in enumerate(self._members):
            for column in members:
                result[:, number] += values[:, column] * values[:, column]
            result[:, number] *= np.float32(1 / len(members))
        return result

    # Prediction

    def _first(self, prediction: _Prediction, start: np.ndarray | None) -> np.ndarray:
        """(n, columns) from baseline and neighbours."""
        share = self.shares[0].astype(np.float32) / np.float32(SHARES)
        expected = share * prediction.mean
        return _settled(expected if start is None else start + expected)

    def contexts(self, prediction: _Prediction, rows: np.ndarray, start: np.ndarray | None) -> np.ndarray:
        """(n, columns) int64: pass, kind of coefficient, length in bits of the likely number of steps."""
        share = self.shares[0].astype(np.float32) / np.float32(SHARES)
        explained = share * (np.float32(2) - share) * prediction.mean * prediction.mean
        spread = prediction.square.copy()
        for number, members in enumerate(self._members):
            total = np.zeros(len(rows), np.float32)
            for column in members:
                total += explained[:, column]
            spread[:, number] -= total * np.float32(1 / len(members))
        likely = np.sqrt(np.maximum(spread, TINY))[:, self.group]
        first = self._first(prediction, start)
        step = self.scale.ordinals(first + likely) - self.scale.ordinals(first - likely)
        bucket = np.frexp(step.astype(np.float64))[1].clip(0, BUCKETS - 1)
        return (self.passes[rows][:, None] * len(self._members) + self.group) * BUCKETS + bucket

    def steps(
        self, prediction: _Prediction, rows: np.ndarray, start: np.ndarray | None, values: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """By how many floating-point numbers values (n, columns) are off, and their contexts."""
        first, actual = self._first(prediction, start), values.astype(np.float32)
        steps = np.empty(values.shape, np.int64)
        for stage in self.stages:
            predicted = self._with_colour(first, actual, stage)
            steps[:, stage] = self.scale.ordinals(actual[:, stage]) - self.scale.ordinals(predicted)
        return steps, self.contexts(prediction, rows, start)

    def restore(
        self, prediction: _Prediction, rows: np.ndarray, start: np.ndarray | None, steps: np.ndarray
    ) -> np.ndarray:
        """The values of :meth:`steps`."""
        first = self._first(prediction, start)
        actual = np.zeros_like(first)
        for stage in self.stages:
            predicted = self._with_colour(first, actual, stage)
            actual[:, stage] = self.scale.numbers(self.scale.ordinals(predicted) + steps[:, stage])
        return actual

    def _with_colour(self, first: np.ndarray, actual: np.ndarray, stage: np.ndarray) -> np.ndarray:
        before = np.array(self.columns.before)[stage]
        if (before < 0).all():
            return first[:, stage]
        share = self.shares[1][stage].astype(np.float32) / np.float32(SHARES)
        return _settled(first[:, stage] + share * (actual[:, before] - first[:, before]))

    def choose_shares(self, values: np.ndarray, baseline: np.ndarray | None) -> None:
        """The shares that leave least, by least squares over a sample of the voxels."""
        rows = np.arange(0, len(self.index), max(1, len(self.index) // BLOCK_ROWS))
        if not len(rows):
            return
        everything = _Walk(self.index, self.shape, self.columns, self.known, self.scale)
        # Near enough to what is known on the way: most voxels are of the last pass.
        everything.difference, everything.is_known = self.difference, self.passes < 3
        later = rows[self.passes[rows] > 0]
        sample = later if len(later) and self.known is None else rows
        prediction = everything.predict(sample)
        own = self.difference[sample].astype(np.float64)
        self.shares[0] = _share(own, prediction.mean)
        first = self._first(prediction, None if baseline is None else baseline[sample])
        off = values[sample].astype(np.float64) - first
        before = np.array(self.columns.before)
        self.shares[1] = np.where(before < 0, 0, _share(off, off[:, before]))


def _share(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    source = source.astype(np.float64)
    ratio = (target * source).sum(0) / np.maximum((source * source).sum(0), 1e-30)
    return np.round(ratio.clip(0, 1) * SHARES).astype(np.uint8)


def _or_zero(baseline: np.ndarray | None, values: np.ndarray) -> np.ndarray | np.float32:
    return np.float32(0) if baseline is None else baseline


def _settled(predicted: np.ndarray) -> np.ndarray:
    """Without numbers so small that some programs switch them off for the whole processor."""
    return np.where(np.abs(predicted) < TINY, np.float32(0), predicted)


# Numbers in their order


class _Scale(NamedTuple):
    """How numbers are counted: floating-point ones of 16 or 32 bits one by one, -0 before 0; or multiples of
    ``2**-places``."""

    bits: int
    places: int

    @classmethod
    def of(cls, values: np.ndarray) -> _Scale:
        """The scale that holds all values (finite), to the sign of zero, in the fewest steps."""
        half, single = values.astype(np.float16), values.astype(np.float32)
        bits = 16 if (half.astype(np.float32).view(np.uint32) == single.view(np.uint32)).all() else 32
        fixed = single.astype(np.float64) * 2**MAX_PLACES
        if (
            not (np.abs(fixed) < 2**30).all()
            or (fixed != np.floor(fixed)).any()
            or (single.view(np.int32) == MINUS_ZERO).any()
        ):
            return cls(bits, FLOATING)
        union = int(np.bitwise_or.reduce(np.abs(fixed).astype(np.int64), axis=None)) or 1
        return cls(bits, max(0, MAX_PLACES - ((union & -union).bit_length() - 1)))

    def ordinals(self, values: np.ndarray) -> np.ndarray:
        """The places (int64) of finite numbers in the order of all."""
        if self.places != FLOATING:
            return np.rint(values.astype(np.float64) * 2**self.places).clip(-(2**30), 2**30).astype(np.int64)
        kind, signed, sign = self._kinds()
        limit = np.finfo(kind).max
        bits = values.clip(-limit, limit).astype(kind).view(signed).astype(np.int64)
        return np.where(bits < 0, -(bits & (sign - 1)) - 1, bits)

    def numbers(self, ordinals: np.ndarray) -> np.ndarray:
        """The numbers at places, as float32.

        Raises:
            CorruptStream: there is no such place.
        """
        kind, signed, sign = self._kinds()
        if self.places != FLOATING:
            return (ordinals / 2.0**self.places).astype(np.float32)
        if len(ordinals) and (int(ordinals.min()) < -sign or int(ordinals.max()) >= sign):
            raise CorruptStream("a coded number is out of range")
        bits = np.where(ordinals < 0, (-ordinals - 1) - sign, ordinals)
        return bits.astype(signed).view(kind).astype(np.float32)

    def _kinds(self) -> tuple[type, type, int]:
        return (np.float16, np.int16, 1 << 15) if self.bits == 16 else (np.float32, np.int32, 1 << 31)


# Contexts


MERGING = (0, 1, 2)
"""How many contexts there are: all, those of all passes together, or of all kinds of coefficients as well."""


def _merged(contexts: np.ndarray, groups: int, coarse: int) -> np.ndarray:
    if coarse == 0:
        return contexts
    return contexts % (groups * BUCKETS) if coarse == 1 else contexts % BUCKETS


def _cheapest(tokens: np.ndarray, contexts: np.ndarray, groups: int) -> tuple[int, Histograms]:
    """The division into contexts that takes fewest bytes, its tables included."""
    choices = []
    for coarse in MERGING:
        histograms = Histograms.of(tokens, _merged(contexts.astype(np.int64), groups, coarse))
        merged = _merged(contexts.astype(np.int64), groups, coarse)
        probability = histograms.frequencies / np.maximum(histograms.frequencies.sum(1, keepdims=True), 1)
        bits = -np.log2(np.maximum(probability, 1e-9))
        counts = np.bincount(merged * histograms.alphabet + tokens, minlength=probability.size).reshape(bits.shape)
        choices.append((float((counts * bits).sum()) / 8 + len(histograms.pack()), coarse, histograms))
    _, coarse, histograms = min(choices, key=lambda choice: choice[0])
    return coarse, histograms


class _Reader:
    def __init__(self, data: bytes, position: int):
        self._data, self._position = data, position

    def take(self, size: int) -> bytes:
        part = self._data[self._position : self._position + size]
        if len(part) != size:
            raise CorruptStream("the coded numbers end too early")
        self._position += size
        return part

    def finish(self) -> None:
        if self._position != len(self._data):
            raise CorruptStream("there are coded numbers left over")


def sh_columns(colours: int = 3, coefficients: int = 9) -> Columns:
    """Spherical harmonics, index ``coefficients * colour + coefficient``: kinds are their degrees."""
    degree = [int(np.sqrt(number)) for number in range(coefficients)]
    before = [max(-1, number - coefficients) for number in range(colours * coefficients)]
    return Columns(tuple(degree * colours), tuple(before))


DENSITY = Columns((0,), (-1,))
