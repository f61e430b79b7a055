"""The content filter: four scores of each edited image, a mean rank, and which images are kept.

That there are four measures, a ranking, and that its upper tenth goes as well, is known from public reviews; which
measures they are is this project's choice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from kornia.color import rgb_to_grayscale
from kornia.filters import spatial_gradient
from torch import Tensor

from perception.radiance.metrics import ssim

SCORES = ("structure", "text", "direction", "consistency")


@dataclass
class FilterSettings:
    """Settings of the content filter."""

    drop_top: float = 0.1
    """Share of the images that is dropped from the top of the ranking."""
    drop_bottom: float = 0.2
    """Share of the images that is dropped from its bottom."""
    min_views: int = 6
    """Images that are kept at least; the best of the dropped bottom come back first."""
    neighbours: int = 4
    """Nearest views that the consistency is measured with."""


class Embedding(Protocol):
    """Turns images, and perhaps texts, into vectors of length 1."""

    name: str

    def images(self, images: Tensor) -> Tensor:
        """(V, 3, H, W) to (V, D)"""
        ...

    def text(self, text: str) -> Tensor | None:
        """A vector (D,); none where the embedding knows no texts."""
        ...


class HistogramEmbedding:
    """The default: square roots of an 8 x 8 x 8 histogram of colours, and 8 gradient orientations on a 4 x 4 grid."""

    name = "hist"

    def images(self, images: Tensor) -> Tensor:
        """(V, 3, H, W) to (V, 640)"""
        return F.normalize(torch.cat([_colours(images), _orientations(images)], 1), dim=1)

    def text(self, text: str) -> None:
        """It knows no texts."""
        return None


def _colours(images: Tensor) -> Tensor:
    level = (images.clamp(0, 1) * 8).long().clamp(max=7)
    bins = (level[:, 0] * 64 + level[:, 1] * 8 + level[:, 2]).flatten(1)  # (V, P)
    counts = torch.zeros(len(images), 512, dtype=images.dtype, device=images.device)
    counts.scatter_add_(1, bins, torch.ones_like(bins, dtype=images.dtype))
    return F.normalize(counts, p=1, dim=1).sqrt()


def _orientations(images: Tensor) -> Tensor:
    gradient = spatial_gradient(rgb_to_grayscale(images))[:, 0]  # (V, 2, H, W)
    strength = gradient.norm(dim=1)
    angle = torch.atan2(gradient[:, 1], gradient[:, 0])  # (-pi, pi]
    bins = ((angle / (2 * math.pi) + 0.5) * 8).long().clamp(0, 7)
    planes = F.one_hot(bins, 8).movedim(-1, 1) * strength[:, None]  # (V, 8, H, W)
    return F.normalize(F.adaptive_avg_pool2d(planes, 4).flatten(1), p=1, dim=1).clamp(min=0).sqrt()


def nearest_views(centres: Tensor, count: int) -> Tensor:
    """Numbers (V, K) of the K = min(count, V - 1) other views whose places (V, 3) are nearest to each view's."""
    distance = torch.cdist(centres.double(), centres.double())
    distance.fill_diagonal_(torch.inf)
    return distance.argsort(dim=1, stable=True)[:, : min(count, len(centres) - 1)]


def image_scores(
    edited: Tensor,
    originals: Tensor,
    centres: Tensor,
    embedding: Embedding,
    *,
    target: str = "",
    source: str = "a photo of a scene",
    neighbours: int = 4,
) -> Tensor:
    """The four scores (V, 4) of edited images, larger is better, in the order of ``SCORES``.

    Args:
        edited, originals: (V, 3, H, W) in [0, 1].
        centres: (V, 3) places of the cameras.
        embedding: of images and, where it can, texts. Without texts, ``text`` compares the mean change of colour with
            the median of all views, and ``direction`` the change of the embedding with the mean change.
        target, source: captions of the edited and the original scene.
        neighbours: see :class:`FilterSettings`.
    """
    structure = torch.stack(
        [ssim(*(rgb_to_grayscale(x).movedim(0, -1) for x in pair)) for pair in zip(edited, originals)]
    )
    after, before = embedding.images(edited), embedding.images(originals)
    words = [embedding.text(text) for text in (target, source)]
    if words[0] is not None and words[1] is not None:
        text = F.cosine_similarity(after, words[0][None])
        direction = F.cosine_similarity(after - before, (words[0] - words[1])[None])
    else:
        shift = (edited - originals).mean((2, 3))  # (V, 3)
        text = -(shift - _median(shift)).norm(dim=1)
        change = after - before
        direction = F.cosine_similarity(change, change.mean(0, keepdim=True))
    near = nearest_views(centres, neighbours)
    if near.shape[1] == 0:
        consistency = torch.ones_like(text)
    else:
        consistency = F.cosine_similarity(after[:, None], after[near], dim=-1).mean(1)
    return torch.stack([structure.to(text), text, direction, consistency], 1)


def _median(values: Tensor) -> Tensor:
    """Column medians (C,) of (V, C), the mean of the middle two where V is even."""
    return torch.quantile(values, 0.5, dim=0)


class Selection(NamedTuple):
    """What the filter decided."""

    mean_rank: Tensor  # (V,) 0 is best
    order: Tensor  # (V,) numbers of the views, best first
    keep: Tensor  # (K,) numbers of those that are kept, ascending


def select(scores: Tensor, drop_top: float = 0.1, drop_bottom: float = 0.2, min_views: int = 6) -> Selection:
    """Rank views by scores (V, M), larger is better, and drop both ends of the ranking.

    Ties go by the number of the view. Shares are rounded down; where fewer than ``min_views`` would be left, dropped
    ones of the bottom come back, best first, and then those of the top, worst first.

    Raises:
        ValueError: a share is not in [0, 1), or a score is not a number.
    """
    for name, share in (("drop_top", drop_top), ("drop_bottom", drop_bottom)):
        if not 0 <= share < 1:
            raise ValueError(f"{name} must be at least 0 and below 1, not {share}")
    if not bool(scores.isfinite().all()):
        raise ValueError("a score of the content filter is not a number")
    ranks = scores.argsort(dim=0, descending=True, stable=True).argsort(dim=0)
    mean_rank = ranks.float().mean(1)
    order = mean_rank.argsort(dim=0, stable=True)
    views = len(scores)
    first, last = math.floor(drop_top * views + 1e-9), views - math.floor(drop_bottom * views + 1e-9)
    missing = min(min_views, views) - max(last - first, 0)
    if missing > 0:
        last = max(last, first)
        back = min(missing, views - last)
        last, first = last + back, first - (missing - back)
    return Selection(mean_rank, order, order[first:last].sort()[0])


def dropped(selection: Selection) -> Sequence[int]:
    """Numbers of the views that are not kept, best first."""
    kept = set(selection.keep.tolist())
    return [view for view in selection.order.tolist() if view not in kept]
