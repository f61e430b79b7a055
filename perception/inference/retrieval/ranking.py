"""Queries in, ranked tiles and a place in the best one out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perception.evaluation.retrieval import Ranking
from perception.geometry.geodesy import moved
from perception.inference.reading import Refused
from perception.inference.retrieval.bank import Bank
from perception.inference.retrieval.model import Fix, QueryFeatures, RetrievalModel, as_batch
from perception.inference.retrieval.places import Place
from perception.inference.retrieval.searching import Search
from perception.inference.retrieval.tile_reader import load_tile
from perception.inference.scan import Source

DIGITS = 6
"""Decimals of similarities: what is equal in them is ordered by name, so that noise of float32 decides nothing."""

_KEPT_CANDIDATES = 64


@dataclass(frozen=True)
class Match:
    """A tile that was found.

    Attributes:
        name: of its file.
        similarity: cosine of the descriptors.
        rerank: what re-ranking added, for the tiles that it ordered.
        place: its middle.
        duplicates: files with the same bytes.
    """

    name: str
    similarity: float
    rerank: float | None
    place: Place | None
    duplicates: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """What was found for a query: tiles, best first, and where in the best one.

    Attributes:
        matches: the tiles.
        tile_pixels: side of the best tile's file.
        fix: the place in it.
        place: the same in degrees, where the tile's own place and size are known.
        tiles: the best tiles at the model's size, uint8 (side, side, 3), for the picture.
    """

    matches: list[Match]
    tile_pixels: int
    fix: Fix
    place: Place | None
    tiles: list[np.ndarray]


@dataclass(frozen=True)
class PreparedQuery:
    """A query at the model's size, uint8 (height, width, 3)."""

    pixels: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.pixels.shape


Reorder = Callable[[Tensor, np.ndarray, Ranking], Ranking]
"""Orders the candidates of queries (Q, C) anew by the descriptors of the gallery alone."""


class Ranker:
    """A :class:`perception.inference.predicting.Predictor` of queries against a bank.

    Args:
        model: the model.
        bank: the gallery's descriptors.
        search: in them.
        paths: files of the gallery by name.
        places: of the tiles by name; may be empty.
        side: of the model's tiles.
        device: the model's.
        top: matches that are reported.
        rerank: how many of the best tiles the model compares with the query itself.
        shown: tiles that a picture shows.
        reorder: applied to the candidates before that; None leaves them as they are.
        candidates: how many `reorder` is given.
    """

    def __init__(
        self,
        model: RetrievalModel,
        bank: Bank,
        search: Search,
        paths: dict[str, Path],
        places: dict[str, Place],
        side: int,
        device: torch.device,
        top: int,
        rerank: int,
        shown: int,
        reorder: Reorder | None = None,
        candidates: int = 100,
    ) -> None:
        self._model, self._bank, self._search = model, bank, search
        self._paths, self._places = paths, places
        self._side, self._device, self._top, self._rerank, self._shown = side, device, top, rerank, shown
        self._reorder, self._candidates = reorder, candidates
        self._encoded: OrderedDict[str, tuple[np.ndarray, Any]] = OrderedDict()

    def prepare(self, source: Source, sample: Any) -> PreparedQuery:
        return PreparedQuery(sample.pixels)

    def predict(self, batch: Sequence[PreparedQuery]) -> list[Found | Refused]:
        """Each query's result depends on it alone, whatever else is in the batch."""
        with torch.inference_mode():
            features = self._model.encode_queries(as_batch([query.pixels for query in batch], self._device))
            usable = [bool(torch.isfinite(f.descriptor).all() and f.descriptor.abs().max() > 0) for f in features]
            good = [one for one, is_usable in zip(features, usable) if is_usable]
            found = iter(self._found(good) if good else ())
            refused = Refused("its descriptor is zero or not finite")
            return [next(found) if is_usable else refused for is_usable in usable]

    def _found(self, queries: Sequence[QueryFeatures]) -> list[Found]:
        descriptors = torch.stack([query.descriptor for query in queries])
        wanted = max(self._top, self._rerank, self._shown)
        # A few more, for those that equal the last one in all decimals that count.
        ranking = self._search(descriptors, max(2 * wanted, self._candidates if self._reorder else 0))
        if self._reorder is not None:
            ranking = self._reorder(descriptors, self._bank.vectors, ranking)
        return [
            self._one(query, numbers.tolist(), values.double().clamp(-1, 1).tolist(), wanted)
            for query, numbers, values in zip(queries, ranking.candidates, ranking.similarities)
        ]

    def _one(self, query: QueryFeatures, numbers: list[int], values: list[float], wanted: int) -> Found:
        # An approximate index fills up with -1 where it finds no more.
        found = [(number, value) for number, value in zip(numbers, values) if number >= 0]
        entries = [self._bank.entries[number] for number, _ in found]
        rounded = [round(value, DIGITS) for _, value in found]
        order = sorted(range(len(entries)), key=lambda k: (-rounded[k], entries[k].name))[:wanted]
        extra: dict[int, float] = {}
        for k in order[: self._rerank]:
            extra[k] = round(self._model.compare(query, self._candidate(entries[k].name)[1]), DIGITS)
        # Beyond the tiles that were compared nothing changes.
        first = sorted(extra, key=lambda k: (-(rounded[k] + extra[k]), order.index(k)))
        order = first + order[len(first) :]
        matches = [
            Match(
                entries[k].name,
                rounded[k],
                extra.get(k),
                self._places.get(entries[k].name),
                entries[k].duplicates,
            )
            for k in order
        ]
        fix = self._model.locate(query, self._candidate(matches[0].name)[1])
        tiles = [self._candidate(match.name)[0] for match in matches[: self._shown]]
        place = _within(matches[0].place, fix)
        return Found(matches[: self._top], entries[order[0]].pixels, fix, place, tiles)

    def _candidate(self, name: str) -> tuple[np.ndarray, Any]:
        """A tile's pixels and what the model makes of them, alone: the same whoever asks."""
        if name not in self._encoded:
            pixels = load_tile(self._paths[name], self._side).pixels
            self._encoded[name] = pixels, self._model.encode_candidate(as_batch([pixels], self._device))
            if len(self._encoded) > _KEPT_CANDIDATES:
                self._encoded.popitem(last=False)
        self._encoded.move_to_end(name)
        return self._encoded[name]


def _within(tile: Place | None, fix: Fix) -> Place | None:
    """The place of a point in a tile."""
    if tile is None or tile.side is None:
        return None
    return Place(*moved(tile.latitude, tile.longitude, -fix.down * tile.side, fix.right * tile.side))
