"""Entropy coding of integer arrays: range asymmetric numeral systems (rANS), many coders side by side in NumPy.

Symbols are coded with static histograms, one per *context*: a number that the decoder knows before the symbol, such as
the channel of a feature. The histograms are stored as integers with the data, so that decoding is exact on every
machine. Duda, "Asymmetric numeral systems", 2013.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

PRECISION = 14  # bits of a probability
LOWER = 1 << 16  # a coder's state stays in [LOWER, 2**32)
WORD = 16  # bits that move between state and stream at once
STEPS = 1500  # symbols per coder, about: fewer are faster, more waste fewer bytes on final states
MAX_LANES = 4096
EIGHTHS = np.array([16384, 17867, 19484, 21247, 23170, 25268, 27554, 30048], np.int64)  # 2**(14 + i / 8)
HEADER = struct.Struct("<IHHII")  # symbols, alphabet, lanes, bytes of tables, words
TABLES = struct.Struct("<IH")  # contexts, alphabet


class CorruptStream(ValueError):
    """Bytes that :func:`encode` cannot have written for these contexts."""


def encode(symbols: np.ndarray, contexts: np.ndarray | None = None) -> bytes:
    """Code symbols with their contexts' histograms.

    Args:
        symbols: (n,) integers in [0, 65535).
        contexts: (n,) small non-negative integers; one context by default.

    Returns:
        Bytes from which :func:`decode` with the same contexts restores the symbols.

    Example:
        >>> symbols = np.arange(10_000) % 7 // 5  # mostly 0
        >>> coded = encode(symbols)
        >>> len(coded) < 10_000 / 8, bool((decode(coded, count=10_000) == symbols).all())
        (True, True)
    """
    symbols = np.asarray(symbols).ravel().astype(np.int64)
    count = len(symbols)
    contexts = _as_contexts(contexts, count)
    histograms = Histograms.of(symbols, contexts)
    state, stream = _code(symbols, contexts, histograms)
    tables = zlib.compress(histograms.levels.tobytes(), 9)
    header = HEADER.pack(count, histograms.alphabet, len(state), len(tables), len(stream))
    return header + tables + state.tobytes() + stream.tobytes()


def decode(data: bytes, contexts: np.ndarray | None = None, *, count: int) -> np.ndarray:
    """Restore the symbols (count,) int64 that :func:`encode` coded with the same contexts.

    Raises:
        CorruptStream: the bytes do not fit.
    """
    if len(data) < HEADER.size:
        raise CorruptStream("the coded data end within their header")
    stored, alphabet, lanes, table_bytes, num_words = HEADER.unpack_from(data)
    if stored != count or not 1 <= lanes <= MAX_LANES:
        raise CorruptStream(f"{stored} coded symbols where {count} are expected")
    if len(data) != HEADER.size + table_bytes + 4 * lanes + 2 * num_words:
        raise CorruptStream("the coded data have another length than they say")
    contexts = _as_contexts(contexts, count)
    if not count:
        return np.zeros(0, np.int64)
    num_contexts = int(contexts.max()) + 1
    histograms = Histograms(_unpack_levels(data[HEADER.size : HEADER.size + table_bytes], num_contexts, alphabet))
    state = np.frombuffer(data, "<u4", lanes, HEADER.size + table_bytes)
    words = np.frombuffer(data, "<u2", num_words, HEADER.size + table_bytes + 4 * lanes)
    return _decode(state, words, contexts, histograms)


class Histograms:
    """The statistics of several arrays of symbols that are coded one after another, each in contexts that may depend on
    those before it.

    Args:
        levels: (contexts, alphabet) uint8, from :meth:`of` or :meth:`unpack`.
    """

    def __init__(self, levels: np.ndarray):
        self.levels = levels
        self.alphabet = levels.shape[1]
        self.frequencies = _frequencies(levels)
        self.starts = np.cumsum(self.frequencies, 1) - self.frequencies
        self._slots: np.ndarray | None = None

    @classmethod
    def of(cls, symbols: np.ndarray, contexts: np.ndarray) -> Histograms:
        """Those of all symbols (n,) in [0, 65535), with their contexts (n,).

        Raises:
            ValueError: a symbol is out of range.
        """
        alphabet = int(symbols.max()) + 1 if len(symbols) else 0
        if len(symbols) and (symbols.min() < 0 or alphabet >= 1 << 16):
            raise ValueError(f"symbols must lie in [0, 65535), got {symbols.min()} to {symbols.max()}")
        return cls(_levels(symbols, contexts, alphabet))

    @property
    def slots(self) -> np.ndarray:
        """(contexts, 2**PRECISION) the symbol that each slot of the probability range belongs to."""
        if self._slots is None:
            self._slots = _slot_tables(self.frequencies)
        return self._slots

    def pack(self) -> bytes:
        """Bytes for :meth:`unpack`."""
        return TABLES.pack(*self.levels.shape) + zlib.compress(self.levels.tobytes(), 9)

    @classmethod
    def unpack(cls, data: bytes, *, max_cells: int = 1 << 24) -> Histograms:
        """Restore the histograms.

        Raises:
            CorruptStream: the bytes do not fit.
        """
        if len(data) < TABLES.size:
            raise CorruptStream("the coded data end within their histograms")
        num_contexts, alphabet = TABLES.unpack_from(data)
        if num_contexts * alphabet > max_cells:
            raise CorruptStream(f"{num_contexts} histograms of {alphabet} symbols")
        return cls(_unpack_levels(data[TABLES.size :], num_contexts, alphabet))

    def encode(self, symbols: np.ndarray, contexts: np.ndarray) -> bytes:
        """Code an array (n,) of those that the histograms are of."""
        state, stream = _code(np.asarray(symbols).astype(np.int64), _as_contexts(contexts, len(symbols)), self)
        return struct.pack("<H", len(state)) + state.tobytes() + stream.tobytes()

    def decode(self, data: bytes, contexts: np.ndarray) -> np.ndarray:
        """Restore an array (n,) int64 from its contexts.

        Raises:
            CorruptStream: the bytes do not fit.
        """
        contexts = _as_contexts(contexts, len(contexts))
        lanes = int.from_bytes(data[:2], "little")
        if not 1 <= lanes <= MAX_LANES or len(data) < 2 + 4 * lanes or len(data) % 2:
            raise CorruptStream("the coded data have an impossible length")
        if len(contexts) and int(contexts.max()) >= len(self.levels):
            raise CorruptStream("the coded data have no histogram for some of them")
        state = np.frombuffer(data, "<u4", lanes, 2)
        return _decode(state, np.frombuffer(data, "<u2", offset=2 + 4 * lanes), contexts, self)


def _code(symbols: np.ndarray, contexts: np.ndarray, histograms: Histograms) -> tuple[np.ndarray, np.ndarray]:
    """The final states (lanes,) "<u4" and the words "<u2"."""
    count, frequencies, starts = len(symbols), histograms.frequencies, histograms.starts
    lanes = min(MAX_LANES, max(1, count // STEPS))
    state = np.full(lanes, LOWER, np.uint64)
    words: list[np.ndarray] = []
    for first in reversed(range(0, count, lanes)):
        part = slice(first, first + lanes)
        active = state[: len(symbols[part])]
        frequency = frequencies[contexts[part], symbols[part]].astype(np.uint64)
        start = starts[contexts[part], symbols[part]].astype(np.uint64)
        full = active >= frequency << np.uint64(32 - PRECISION)
        words.append((active[full] & np.uint64(0xFFFF)).astype("<u2"))
        active[full] >>= np.uint64(WORD)
        active[:] = ((active // frequency) << np.uint64(PRECISION)) + active % frequency + start
    stream = np.concatenate(words[::-1]) if words else np.zeros(0, "<u2")
    return state.astype("<u4"), stream


def _decode(state: np.ndarray, words: np.ndarray, contexts: np.ndarray, histograms: Histograms) -> np.ndarray:
    count, lanes, num_words = len(contexts), len(state), len(words)
    lookup, starts = histograms.slots, histograms.starts.astype(np.uint64)
    frequencies = histograms.frequencies.astype(np.uint64)
    state, words = state.astype(np.uint64), words.astype(np.uint64)
    symbols, position = np.empty(count, np.int64), 0
    slot_mask = np.uint64((1 << PRECISION) - 1)
    for first in range(0, count, lanes):
        part = slice(first, min(first + lanes, count))
        active, context = state[: part.stop - first], contexts[part]
        slot = active & slot_mask
        symbol = lookup[context, slot.astype(np.int64)]
        symbols[part] = symbol
        active[:] = frequencies[context, symbol] * (active >> np.uint64(PRECISION)) + slot - starts[context, symbol]
        empty = (active < LOWER).nonzero()[0]
        refill = words[position : position + len(empty)]
        if len(refill) != len(empty):
            raise CorruptStream("the coded data end too early")
        active[empty] = (active[empty] << np.uint64(WORD)) | refill
        position += len(empty)
    if position != num_words or not bool((state == LOWER).all()):
        raise CorruptStream("the coded data do not end where they should")
    return symbols


def _as_contexts(contexts: np.ndarray | None, count: int) -> np.ndarray:
    if contexts is None:
        return np.zeros(count, np.int64)
    contexts = np.asarray(contexts).ravel().astype(np.int64)
    if len(contexts) != count:
        raise ValueError(f"{len(contexts)} contexts for {count} symbols")
    return contexts


def _levels(symbols: np.ndarray, contexts: np.ndarray, alphabet: int) -> np.ndarray:
    """(contexts, alphabet) uint8: how often each symbol occurs, in eighths of an octave above 1; 0 for never."""
    if not len(symbols):
        return np.zeros((0, 0), np.uint8)
    num_contexts = int(contexts.max()) + 1
    counts = np.bincount(contexts * alphabet + symbols, minlength=num_contexts * alphabet)
    levels = np.zeros(len(counts), np.uint8)
    occurs = counts > 0
    levels[occurs] = np.minimum(255, 1 + np.round(8 * np.log2(counts[occurs])))
    return levels.reshape(num_contexts, alphabet)


def _frequencies(levels: np.ndarray) -> np.ndarray:
    """(contexts, alphabet) int64 from integers alone; rows sum to ``2**PRECISION``, what occurs is at least 1."""
    octave, eighth = np.divmod(np.maximum(levels.astype(np.int64) - 1, 0), 8)
    counts = np.where(levels > 0, EIGHTHS[eighth] << octave, 0)
    return np.stack([_scale(row, 1 << PRECISION) for row in counts]) if len(counts) else counts


def _scale(counts: np.ndarray, total: int) -> np.ndarray:
    occurs = counts > 0
    if occurs.sum() > total:
        raise ValueError(f"more than {total} different symbols in one context")
    if not occurs.any():
        return np.zeros_like(counts)
    # Counts of up to 2**46 times the total must not overflow.
    weights = counts >> max(0, int(counts.max()).bit_length() - 40)
    scaled = np.where(occurs, np.maximum(1, weights * total // max(1, int(weights.sum()))), 0)
    # What rounding left over goes to, or comes from, the most frequent symbols, where it costs least.
    order = np.argsort(-counts, kind="stable")
    excess = int(scaled.sum()) - total
    if excess < 0:
        scaled[order[0]] -= excess
    for symbol in order:
        if excess <= 0:
            break
        taken = min(excess, int(scaled[symbol]) - 1)
        scaled[symbol] -= taken
        excess -= taken
    return scaled


def _unpack_levels(data: bytes, num_contexts: int, alphabet: int) -> np.ndarray:
    size = num_contexts * alphabet
    try:
        raw = zlib.decompressobj().decompress(data, size + 1)
    except zlib.error as error:
        raise CorruptStream(f"unreadable histograms: {error}") from None
    if len(raw) != size:
        raise CorruptStream(f"histograms of {len(raw)} bytes where {size} are expected")
    levels = np.frombuffer(raw, np.uint8).reshape(num_contexts, alphabet)
    if size and int((levels > 0).sum(1).max()) > 1 << PRECISION:
        raise CorruptStream("a histogram with too many symbols")
    return levels


def _slot_tables(frequencies: np.ndarray) -> np.ndarray:
    """(contexts, 2**PRECISION): the symbol that each slot of the probability range belongs to."""
    table = np.zeros((len(frequencies), 1 << PRECISION), np.int64)
    for row, frequency in zip(table, frequencies):
        if frequency.any():
            row[:] = np.repeat(np.arange(len(frequency)), frequency)
    return table
