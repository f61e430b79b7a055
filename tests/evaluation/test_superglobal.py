"""SuperGlobal against its equations, written as loops."""

import numpy as np
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from perception.evaluation.retrieval import top_k
from perception.evaluation.superglobal import gem_p, regional_gem, relu_p, rerank, scale_gem


def test_pooling():
    x = torch.rand(2, 3, 7, 6)
    assert_close(relu_p(torch.tensor([-1.0, 0.01, 0.5])), torch.tensor([0.014, 0.014, 0.5]))
    expected = torch.empty_like(x)
    padded = F.pad(x, (2, 2, 2, 2), mode="reflect")
    for row in range(7):
        for column in range(6):
            window = padded[:, :, row : row + 5, column : column + 5]
            expected[:, :, row, column] = 0.5 * (window**2.5).mean((2, 3)) ** (1 / 2.5) + 0.5 * x[:, :, row, column]
    assert_close(regional_gem(x), expected)
    assert regional_gem(-x).isnan().any()
    assert_close(gem_p(x), (x**4.6).mean((2, 3)) ** (1 / 4.6))


def test_scales():
    first, second = (F.normalize(torch.randn(2, 8)) for _ in range(2))
    assert_close(scale_gem([first, second]), torch.maximum(first, second))
    assert_close(scale_gem([5 * first, second / 3]), torch.maximum(first, second))
    pooled = scale_gem([first, second], p=10.0)
    for image in range(2):
        low = min(first[image].min(), second[image].min())
        mean = ((first[image] - low) ** 10 + (second[image] - low) ** 10) / 2
        assert_close(pooled[image], mean**0.1 + low)
    # What an image gets does not depend on the others.
    assert_close(scale_gem([first[:1], second[:1]], p=10.0), pooled[:1])


def by_loops(query, gallery, numbers, neighbours, beta):
    """Spec of the re-ranking, one candidate at a time."""
    refined = []
    for number in numbers:
        similarities = sorted(((float(gallery[number] @ gallery[other]), other) for other in numbers), reverse=True)
        others = [(value, other) for value, other in similarities if other != number][:neighbours]
        total, weights = gallery[number].copy(), 1.0
        for value, other in others:
            total, weights = total + beta * value * gallery[other], weights + beta * value
        refined.append(total / weights)
    first = [float(vector @ query) for vector in refined]
    best = np.argsort(-np.array(first), kind="stable")[: neighbours + 1]
    expanded = np.max([refined[k] for k in best], axis=0)
    final = [(a + float(vector @ expanded)) / 2 for a, vector in zip(first, refined)]
    order = np.argsort(-np.array(final), kind="stable")
    return [numbers[k] for k in order], [final[k] for k in order]


def test_reranking():
    torch.manual_seed(1)
    gallery, queries = F.normalize(torch.randn(40, 6)).double(), F.normalize(torch.randn(5, 6)).double()
    ranking = top_k(queries, gallery, 12)
    found = rerank(queries, gallery, ranking, neighbours=3)
    for query, numbers, candidates, scores in zip(
        queries.numpy(), ranking.candidates.tolist(), found.candidates.tolist(), found.similarities
    ):
        expected, values = by_loops(query, gallery.numpy(), numbers, 3, 0.15)
        assert candidates == expected
        assert_close(scores, torch.tensor(values, dtype=torch.float64))
    assert (found.candidates != ranking.candidates).any()


def test_fewer_candidates_than_neighbours():
    gallery, queries = F.normalize(torch.randn(3, 6)), F.normalize(torch.randn(2, 6))
    found = rerank(queries, gallery, top_k(queries, gallery, 3))
    assert sorted(found.candidates[0].tolist()) == [0, 1, 2]
