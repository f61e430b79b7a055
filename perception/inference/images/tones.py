"""How samples of rasters become 8 bits, by one rule for a whole image.

In this order: the range that the user gives; for 8-bit samples what they are; the number of bits that the file states
(NBITS); its statistics; all 16 bits of unsigned samples; the range of nearly all samples, from a bounded sample over
the whole image. What a file states, or the type allows, counts only if the samples make use of it: many sensors fill
11 bits of 16, and pictures would be black.

One range holds for all bands, so that colours stay what they are. Samples count after the file's scale and offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

# Between these all samples count, in percent: a few are reflections and defects.
_NEARLY_ALL = (0.1, 99.9)
# With fewer different values it is not clear which are fill.
_FEW = 16
# The share of a range that samples have to reach to make use of it.
_USED = {"bits": 0.5, "statistics": 0.25}


class Tones(Protocol):
    """Samples (bands, height, width) to uint8 of the same shape."""

    def __call__(self, samples: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Shift:
    """Unsigned samples of a known number of bits: the upper 8 of them, or all bits of fewer spread to 255."""

    bits: int

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        if self.bits > 8:
            return (samples >> (self.bits - 8)).clip(0, 255).astype(np.uint8)
        if self.bits < 8:
            return (samples * (255 // (2**self.bits - 1))).astype(np.uint8)
        return samples.astype(np.uint8, copy=False)


@dataclass(frozen=True)
class Stretch:
    """Samples from `low` to `high` of each band to 0 to 255, after `scale` and `offset`; what is not finite is 0."""

    ranges: tuple[tuple[float, float], ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        result = np.empty(samples.shape, np.uint8)
        for index, band in enumerate(samples):
            if band.dtype.kind in "ui" and band.dtype.itemsize <= 2:
                result[index] = self._table(index, band.dtype)[band.view(f"u{band.dtype.itemsize}")]
            else:
                result[index] = self._of(index, band)
        return result

    def _of(self, band: int, samples: np.ndarray) -> np.ndarray:
        low, high = self.ranges[band]
        values = samples.astype(np.float64) * self.scales[band] + self.offsets[band]
        share = np.nan_to_num((values - low) / max(high - low, np.finfo(np.float64).tiny), posinf=1.0, neginf=0.0)
        return (share.clip(0, 1) * 255).round().astype(np.uint8)

    def _table(self, band: int, kind: np.dtype) -> np.ndarray:
        """All results of a type of 8 or 16 bits, by its bits."""
        every = np.arange(2 ** (8 * kind.itemsize), dtype=f"u{kind.itemsize}").view(kind)
        return self._of(band, every)


@dataclass(frozen=True)
class SampleFacts:
    """What a raster states of the samples of the bands that are seen, and some of them.

    Attributes:
        kind: of all bands.
        bits: what the file states that samples have; None when it does not.
        statistics: least and greatest sample of each band, as the file states them; None when it does not for all.
        scales, offsets: of each band.
        some: samples that are data (number,) of each band, from the whole image.
    """

    kind: np.dtype
    bits: int | None
    statistics: Sequence[tuple[float, float]] | None
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    some: Sequence[np.ndarray]

    def physical(self, values: Sequence[ArrayLike]) -> np.ndarray:
        """Samples of all bands after scale and offset, in one row."""
        parts = (np.asarray(v, np.float64) * s + o for v, s, o in zip(values, self.scales, self.offsets))
        return np.concatenate([part.ravel() for part in parts])


def choose_tones(facts: SampleFacts, wanted: Sequence[tuple[float, float]] | None = None) -> tuple[Tones, str]:
    """The rule for an image, and what a user should know of it.

    Args:
        facts: what is known of the image.
        wanted: the user's range, for all bands or for each.

    Raises:
        ValueError: samples have no brightness, or the user's ranges are not as many as the bands.
    """
    count = len(facts.scales)
    if facts.kind.kind not in "uif":
        raise ValueError(f"{facts.kind} samples, which have no brightness")
    if wanted is not None:
        if len(wanted) not in (1, count):
            raise ValueError(f"--range has ranges of {len(wanted)} bands, but {count} are seen")
        return _stretch(facts, list(wanted) * (count // len(wanted))), ""
    if facts.kind == np.uint8:
        return Shift(8 if facts.bits is None else facts.bits), ""
    seen = _without_fill(facts.physical(facts.some))
    low, high = np.percentile(seen, _NEARLY_ALL) if len(seen) else (0.0, 1.0)
    plain = facts.kind == np.uint16 and all(s == 1 for s in facts.scales) and not any(facts.offsets)
    if plain and (not len(seen) or high >= _USED["bits"] * 2 ** (facts.bits or 16)):
        return Shift(facts.bits or 16), ""
    if facts.statistics is not None:
        least, greatest = np.sort(facts.physical(facts.statistics))[[0, -1]]
        if least <= low and high <= greatest and high - least >= _USED["statistics"] * (greatest - least):
            return _stretch(facts, [(least, greatest)] * count), _remark(least, greatest, "its statistics")
    return _stretch(facts, [(low, high)] * count), _remark(low, high, f"{_NEARLY_ALL[1] - _NEARLY_ALL[0]:g} % of them")


def _without_fill(values: np.ndarray) -> np.ndarray:
    """Finite values, without one at either end that comes often and far from all others: -9999, 65535 and the like."""
    values = np.sort(values[np.isfinite(values)])
    for _ in range(2):
        distinct, counts = np.unique(values, return_counts=True)
        if len(distinct) <= _FEW:
            return values
        often = counts >= len(values) * (100 - _NEARLY_ALL[1]) / 100
        if often[0] and distinct[1] - distinct[0] > distinct[-1] - distinct[1]:
            values = values[values > distinct[0]]
        elif often[-1] and distinct[-1] - distinct[-2] > distinct[-2] - distinct[0]:
            values = values[values < distinct[-1]]
    return values


def _stretch(facts: SampleFacts, ranges: Sequence[tuple[float, float]]) -> Stretch:
    return Stretch(tuple((float(low), float(high)) for low, high in ranges), facts.scales, facts.offsets)


def _remark(low: float, high: float, why: str) -> str:
    return f"samples from {low:.6g} to {high:.6g} ({why}) become black to white"
