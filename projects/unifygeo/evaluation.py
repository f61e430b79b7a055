"""Evaluation on VIGOR: retrieval, re-ranking of the best tiles, localisation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmengine.dist import all_gather_object
from mmengine.model import is_model_wrapper
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from perception.datasets.geolocalization import VigorTiles
from perception.evaluation.geolocalization import (
    Retrieved,
    joint_numbers,
    localization_numbers,
    reranked,
    retrieval_numbers,
)
from perception.evaluation.retrieval import strict_ranks, top_k

from .model import UnifyGeo
from .reranking import similarity


@dataclass
class Queries:
    """What a model finds of all pairs of a split, in their order.

    Attributes:
        descriptors, rerank_descriptors: (Q, C) of unit length.
        errors: (Q,) metres on the positive tile.
    """

    descriptors: Tensor
    rerank_descriptors: Tensor
    errors: Tensor


@torch.no_grad()
def describe_tiles(model: UnifyGeo, loader: Iterable[dict]) -> Tensor:
    """Descriptors (T, C) of all tiles, by number; with several processes, each has done its share."""
    found = {}
    for data in tqdm(loader, "tiles", leave=False, disable=None):
        for sample in model.test_step(data):
            found[sample.tile] = sample.descriptor.cpu()
    return torch.stack([value for _, value in sorted(_everywhere(found).items())])


@torch.no_grad()
def examine_pairs(model: UnifyGeo, loader: DataLoader) -> Queries:
    """Descriptors and errors of all pairs, by number; with several processes, each has done its share."""
    core = model.module if is_model_wrapper(model) else model
    found = {}
    for data in tqdm(loader, "panoramas", leave=False, disable=None):
        side = data["inputs"]["satellite"][0].shape[-1]
        samples = model.test_step(data)
        for sample, error in zip(samples, core.errors(samples, side)):
            found[sample.pair] = (sample.descriptor.cpu(), sample.rerank_descriptor.cpu(), error)
    columns = zip(*(value for _, value in sorted(_everywhere(found).items())))
    return Queries(*(torch.stack(column) for column in columns))


@torch.no_grad()
def rerank_similarities(
    model: UnifyGeo, tiles: VigorTiles, candidates: Tensor, descriptors: Tensor, batch_size: int
) -> Tensor:
    """:func:`~projects.unifygeo.reranking.similarity` of each query with its candidates.

    Each tile is encoded once, and its map is dropped when the queries that have it are served.

    Args:
        model: the model.
        tiles: the gallery.
        candidates: (Q, K) tile numbers.
        descriptors: (Q, C) of the queries.
        batch_size: tiles at a time.
    """
    core = model.module if is_model_wrapper(model) else model
    wanted = defaultdict(list)
    for query, row in enumerate(candidates.tolist()):
        for place, tile in enumerate(row):
            wanted[tile].append((query, place))
    found = torch.zeros(candidates.shape)
    order = sorted(wanted)
    loader = DataLoader(Subset(tiles, order), batch_size, collate_fn=list)
    for start, batch in zip(range(0, len(order), batch_size), tqdm(loader, "re-ranking", leave=False, disable=None)):
        images = torch.stack([item["inputs"]["satellite"] for item in batch])
        device = next(core.network.parameters()).device
        maps = core.network.rerank_maps(core.data_preprocessor.normalise(images.to(device))).float()
        for tile, cells in zip(order[start : start + batch_size], maps):
            queries, places = zip(*wanted[tile])
            scores = similarity(descriptors[list(queries)].to(device), cells[None])[:, 0]
            found[list(queries), list(places)] = scores.cpu()
    return found


def evaluate(model: UnifyGeo, tile_loader: DataLoader, pair_loader: DataLoader, rerank_topk: int) -> dict[str, float]:
    """All numbers of the paper's tables, in percent and metres.

    Those before re-ranking have plain names, those after it end in ``_rerank``; recalls beyond the candidates are the
    same for both.

    Args:
        model: the model.
        tile_loader: over a :class:`~perception.datasets.geolocalization.VigorTiles`.
        pair_loader: over a :class:`~perception.datasets.geolocalization.VigorPairs`.
        rerank_topk: candidates that are ordered anew; 0 leaves re-ranking out.
    """
    tiles = tile_loader.dataset
    gallery = describe_tiles(model, tile_loader)
    queries = examine_pairs(model, pair_loader)
    covering = torch.tensor([pair.tiles for pair in pair_loader.dataset.vigor.pairs])
    wanted, semi = covering[:, 0], covering[:, 1:]
    ranks, without_semi = strict_ranks(queries.descriptors, gallery, wanted, semi)
    retrieved = Retrieved(ranks, without_semi == 1, len(gallery))
    numbers = retrieval_numbers(retrieved) | _located(retrieved.ranks, queries.errors)
    if rerank_topk:
        best = top_k(queries.descriptors, gallery, rerank_topk)
        scores = rerank_similarities(
            model, tiles, best.candidates, queries.rerank_descriptors, tile_loader.batch_size or 32
        )
        after = reranked(retrieved, best.candidates, best.similarities + scores, wanted, semi)
        again = retrieval_numbers(after) | joint_numbers(after.ranks.numpy(), queries.errors.numpy())
        numbers |= {f"{name}_rerank": value for name, value in again.items()}
    return numbers


def _located(ranks: Tensor, errors: Tensor) -> dict[str, float]:
    return localization_numbers(errors.numpy()) | joint_numbers(ranks.numpy(), errors.numpy())


def similar_tiles(
    pairs: Sequence[int],
    queries: Tensor,
    gallery: Tensor,
    candidates: int,
    keep: int,
    *,
    numbers: Sequence[int] | None = None,
    num_tiles: int | None = None,
) -> np.ndarray:
    """For each tile those that panoramas taken in it are likest, itself left out, of the tiles that panoramas have.

    Args:
        pairs: (Q,) tile of each panorama.
        queries: (Q, C) descriptors.
        gallery: (G, C) descriptors of tiles.
        candidates: tiles of each panorama that are looked at.
        keep: tiles that stay.
        numbers: (G,) of the gallery's tiles; None: they are all.
        num_tiles: T, by default G.

    Returns:
        (T, keep) tile numbers, likest first, -1 where there are no more. Of several panoramas in a tile the likest
        counts.
    """
    every = np.arange(len(gallery)) if numbers is None else np.asarray(numbers)
    own = np.isin(every, np.unique(pairs))
    found = top_k(queries, gallery[torch.from_numpy(own)], candidates)
    likeness: dict[int, dict[int, float]] = defaultdict(dict)
    for tile, chosen, values in zip(pairs, every[own][found.candidates.cpu()].tolist(), found.similarities.tolist()):
        known = likeness[tile]
        for number, value in zip(chosen, values):
            if number != tile:
                known[number] = max(value, known.get(number, -np.inf))
    lists = np.full((len(gallery) if num_tiles is None else num_tiles, keep), -1, np.int64)
    for tile, known in likeness.items():
        order = sorted(known, key=lambda number: (-known[number], number))[:keep]
        lists[tile, : len(order)] = order
    return lists


def _everywhere(found: dict) -> dict:
    """The union of all processes' findings, on every process."""
    parts: list[dict] = all_gather_object(found)
    return {key: value for part in parts for key, value in part.items()}
