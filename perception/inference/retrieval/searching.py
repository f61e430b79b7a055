"""Searches in a bank: exact, and approximate through faiss."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from perception.engine.errors import UserError
from perception.evaluation.retrieval import Ranking, top_k

Search = Callable[[Tensor, int], Ranking]
"""The best k of a gallery for queries (Q, C)."""

INDEXES = ("exact", "hnsw")

_LINKS, _BREADTH = 32, 128
_SAMPLE, _NOISE = 200, 0.3


def exact(vectors: np.ndarray) -> Search:
    """All inner products."""
    return lambda queries, k: top_k(queries, vectors, k)


def hnsw(vectors: np.ndarray, say: Callable[[str], None]) -> Search:
    """A graph of neighbours (faiss' HNSW with 32 links, searched 128 wide), whose recall is measured and said.

    It is built anew in every run, by one thread, so that the same bank gives the same graph.

    Raises:
        UserError: faiss is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise UserError("--index hnsw needs faiss: pip install faiss-cpu") from None
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    index = faiss.IndexHNSWFlat(vectors.shape[1], _LINKS, faiss.METRIC_INNER_PRODUCT)
    index.add(np.ascontiguousarray(vectors))
    faiss.omp_set_num_threads(threads)
    index.hnsw.efSearch = _BREADTH

    def search(queries: Tensor, k: int) -> Ranking:
        values, numbers = index.search(queries.cpu().numpy(), min(k, len(vectors)))
        return Ranking(torch.from_numpy(numbers).to(queries.device), torch.from_numpy(values).to(queries.device))

    say(f"approximate index: recall@10 {_recall(search, vectors):.3f} on noisy vectors of the gallery")
    return search


def _recall(search: Search, vectors: np.ndarray) -> float:
    """Share of the exact ten best that a search finds for some of the gallery's vectors, with noise."""
    rng = np.random.default_rng(0)
    chosen = vectors[rng.choice(len(vectors), min(_SAMPLE, len(vectors)), replace=False)]
    noise = rng.standard_normal(chosen.shape).astype(np.float32) * _NOISE / np.sqrt(chosen.shape[1])
    queries = torch.nn.functional.normalize(torch.from_numpy(chosen + noise))
    wanted, found = (find(queries, 10).candidates.tolist() for find in (exact(vectors), search))
    return float(np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(wanted, found)]))
