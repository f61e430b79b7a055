"""Ranks of the right item in a gallery, in memory that does not grow with the gallery."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK = 2**24
"""Similarities that are held at a time (64 MiB in float32)."""


@dataclass(frozen=True)
class Ranking:
    """What a search found, for Q queries.

    Attributes:
        candidates: (Q, K) numbers of gallery items, best first; items of equal similarity in the gallery's order.
        similarities: (Q, K) of the candidates.
    """

    candidates: Tensor
    similarities: Tensor


def top_k(queries: Tensor, gallery: Tensor, k: int) -> Ranking:
    """The best of a gallery by inner product, exactly; ties go to the earlier item.

    Args:
        queries: (Q, C).
        gallery: (R, C), also memory-mapped.
        k: candidates of each query, at most R.
    """
    k = min(k, len(gallery))
    best = queries.new_full((len(queries), k), -torch.inf)
    numbers = torch.full((len(queries), k), -1, dtype=torch.long, device=queries.device)
    for rows, start, product in _products(queries, gallery):
        some = min(k, product.shape[1])
        values, places = product.topk(some, dim=1)
        # topk takes any of those that equal the last one: the earliest are wanted.
        places = _earliest(product, values, places)
        joined = torch.cat([best[rows], values], 1)
        order = torch.argsort(joined, dim=1, descending=True, stable=True)[:, :k]
        best[rows] = joined.gather(1, order)
        numbers[rows] = torch.cat([numbers[rows], places + start], 1).gather(1, order)
    return Ranking(numbers, best)


def strict_ranks(
    queries: Tensor, gallery: Tensor, wanted: Tensor, ignored: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Rank of each query's own item by the strict rule: 1 + the number of items that are strictly more similar.

    Args:
        queries: (Q, C).
        gallery: (R, C).
        wanted: (Q,) numbers of gallery items.
        ignored: (Q, S) numbers of items that do not count; -1 stands for none.

    Returns:
        ranks (Q,) among all, and among all but the ignored.
    """
    above = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
    ignored_above = torch.zeros_like(above)
    if ignored is not None:
        ignored = ignored.sort(1).values
        ignored[:, 1:] = ignored[:, 1:].where(ignored[:, 1:] != ignored[:, :-1], -1)
    own = queries.new_empty(len(queries))
    # From the same products as the rest: another summation order could set an item above itself.
    for rows, start, product in _products(queries, gallery):
        inside = (wanted[rows] >= start) & (wanted[rows] < start + product.shape[1])
        found = product.gather(1, (wanted[rows] - start).clamp(0, product.shape[1] - 1)[:, None])[:, 0]
        own[rows] = torch.where(inside, found, own[rows])
    for rows, start, product in _products(queries, gallery):
        above[rows] += (product > own[rows, None]).sum(1)
        if ignored is not None:
            places = ignored[rows] - start
            inside = (places >= 0) & (places < product.shape[1]) & (ignored[rows] >= 0)
            values = product.gather(1, places.clamp(0, product.shape[1] - 1))
            ignored_above[rows] += (inside & (values > own[rows, None])).sum(1)
    return above + 1, above - ignored_above + 1


def recalls(ranks: Tensor, gallery_size: int, at: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Percentage of ranks within each cut-off, and within one percent of the gallery.

    Example:
        >>> recalls(torch.tensor([1, 3, 40, 7]), gallery_size=1000)
        {'R@1': 25.0, 'R@5': 50.0, 'R@10': 75.0, 'R@1%': 75.0}
    """
    cuts = {f"R@{k}": k for k in at} | {"R@1%": max(1, gallery_size // 100)}
    return {name: 100 * (ranks <= k).double().mean().item() for name, k in cuts.items()}


def _products(queries: Tensor, gallery: Tensor) -> Iterator[tuple[slice, int, Tensor]]:
    """Inner products by blocks of queries and gallery: rows, first gallery item, (q, r)."""
    columns = min(len(gallery), max(1, _CHUNK // 256))
    rows = max(1, _CHUNK // max(1, columns))
    for first in range(0, len(gallery), columns):
        block = torch.as_tensor(gallery[first : first + columns]).to(queries)
        for start in range(0, len(queries), rows):
            part = slice(start, min(start + rows, len(queries)))
            yield part, first, queries[part] @ block.T


def _earliest(product: Tensor, values: Tensor, places: Tensor) -> Tensor:
    """The places of the best values with those of equal value in rising order, and the earliest at the cut."""
    last = values[:, -1:]
    crowded = (product == last).sum(1) > (values == last).sum(1)
    for row in crowded.nonzero()[:, 0].tolist():
        order = torch.argsort(product[row], descending=True, stable=True)[: places.shape[1]]
        places[row] = order
    tied = (values[:, 1:] == values[:, :-1]).any(1) & ~crowded
    for row in tied.nonzero()[:, 0].tolist():
        rank = torch.unique_consecutive(values[row], return_inverse=True)[1]
        places[row] = places[row][torch.argsort(places[row] + rank * product.shape[1], stable=True)]
    return places
