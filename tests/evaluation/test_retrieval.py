"""Exact ranks and candidates, and the numbers of geo-localisation."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from perception.evaluation import retrieval
from perception.evaluation.geolocalization import (
    Retrieved,
    joint_numbers,
    localization_numbers,
    reranked,
    retrieval_numbers,
)
from perception.evaluation.retrieval import recalls, strict_ranks, top_k


@pytest.fixture(params=[300, 2**24], ids=["small blocks", "one block"])
def blocks(request, monkeypatch):
    monkeypatch.setattr(retrieval, "_CHUNK", request.param)


def tied(seed=0):
    """Vectors of small whole numbers, whose products tie often."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(-2, 3, (n, 4), generator=generator).float() for n in (40, 70))


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("k", [1, 6, 70, 100])
def test_candidates(k):
    queries, gallery = tied()
    found = top_k(queries, gallery, k)
    product = queries @ gallery.T
    order = torch.argsort(product, dim=1, descending=True, stable=True)[:, :k]
    assert (found.candidates == order).all()
    assert_close(found.similarities, product.gather(1, order))


@pytest.mark.usefixtures("blocks")
def test_ranks():
    queries, gallery = tied(1)
    generator = torch.Generator().manual_seed(2)
    wanted = torch.randint(0, 70, (40,), generator=generator)
    ignored = torch.randint(-1, 70, (40, 3), generator=generator)
    ranks, others = strict_ranks(queries, gallery, wanted, ignored)
    for query in range(40):
        product = gallery @ queries[query]
        above = set((product > product[wanted[query]]).nonzero()[:, 0].tolist())
        assert ranks[query] == 1 + len(above)
        # The same number may be ignored twice: it is one item.
        assert others[query] == 1 + len(above - set(ignored[query].tolist()))


def test_recalls():
    numbers = recalls(torch.tensor([1, 2, 6, 300]), 250)
    assert numbers == {"R@1": 25, "R@5": 50, "R@10": 75, "R@1%": 50}
    assert recalls(torch.tensor([1, 2]), 50)["R@1%"] == 50  # at least the first


def test_reranking_changes_only_the_candidates():
    before = Retrieved(torch.tensor([1, 3, 9]), torch.tensor([True, False, False]), 500)
    candidates = torch.tensor([[4, 7, 8], [1, 2, 3], [5, 6, 0]])
    fused = torch.tensor([[1.0, 1.01, 0.5], [1.0, 0.2, 1.0], [3.0, 2.0, 1.0]])
    wanted, semi = torch.tensor([4, 3, 9]), torch.tensor([[7, 11, 12], [2, 11, 12], [5, 6, 7]])
    after = reranked(before, candidates, fused, wanted, semi)
    # 7 is above 4, but a semi-positive; 1 ties with 3: not strictly above; 9 is no candidate.
    assert after.ranks.tolist() == [2, 1, 9]
    assert after.hits.tolist() == [True, True, False]
    near, far = retrieval_numbers(before), retrieval_numbers(after)
    assert near["R@10"] == far["R@10"]
    assert far["hit_rate"] == pytest.approx(200 / 3)


def test_metres():
    errors, ranks = np.array([0.5, 1.0, 4.0, 30.0]), np.array([1, 1, 2, 1])
    numbers = localization_numbers(errors)
    assert numbers["mean_m"] == pytest.approx(8.875)
    assert numbers["median_m"] == 2.5
    assert (numbers["L@1m"], numbers["L@3m"], numbers["L@20m"]) == (25, 50, 75)
    joint = joint_numbers(ranks, errors)
    assert (joint["LF@1m"], joint["LF@5m"]) == (25, 50)
