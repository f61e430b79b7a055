"""The codebook: nearest codeword, learning of codewords by running averages weighted with importance, and groups of
voxels that share one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from perception.ops.nearest_codeword import nearest_codeword
from projects.vqrf.pruning import VoxelClasses


class Assignment(NamedTuple):
    """Vectors replaced by codewords."""

    quantized: Tensor  # (n, C) nearest codewords
    codes: Tensor  # (n,) int64 their numbers


class EuclideanCodebook(nn.Module):
    """The buffers of the released code, by its names: ``embed`` (1, K, C), ``cluster_size`` (1, K), ``embed_avg``,
    ``initted``.
    """

    def __init__(self, dim: int, codebook_size: int):
        super().__init__()
        bound = math.sqrt(6 / (codebook_size * dim))  # Kaiming uniform on (1, K, C)
        embed = torch.empty(1, codebook_size, dim).uniform_(-bound, bound)
        self.register_buffer("initted", torch.ones(1))
        self.register_buffer("cluster_size", torch.zeros(1, codebook_size))
        self.register_buffer("embed_avg", embed.clone())
        self.register_buffer("embed", embed)


class VectorQuantizer(nn.Module):
    """K codewords of C numbers (paper section 3.3).

    Args:
        dim: C.
        codebook_size: K.
        decay: share of the old value in a running average.
        eps: smoothing of cluster sizes.
        k_expire: least used codewords that each update replaces by the most important vectors of the batch.

    State-dict names: ``_codebook.{initted, cluster_size, embed_avg, embed}``.
    """

    def __init__(self, dim: int, codebook_size: int, *, decay: float = 0.8, eps: float = 1e-5, k_expire: int = 10):
        super().__init__()
        if codebook_size < 1 or not 0 <= k_expire <= codebook_size:
            raise ValueError(f"k_expire must lie between 0 and the {codebook_size} codewords, not {k_expire}")
        self.decay, self.eps, self.k_expire = decay, eps, k_expire
        self._codebook = EuclideanCodebook(dim, codebook_size)

    @property
    def embed(self) -> Tensor:
        """The codewords (K, C); writing to it changes them."""
        return self._codebook.embed[0]

    def assign(self, vectors: Tensor) -> Tensor:
        """Number (n,) of the codeword nearest to each vector (n, C); of equally near ones the lowest."""
        return nearest_codeword(vectors, self.embed)

    def forward(self, vectors: Tensor, weights: Tensor | None = None) -> Assignment:
        """Quantise vectors (n, C); in training also learn from them, weighted with ``weights`` (n,).

        The result shows the codewords as they were before learning.
        """
        codes = self.assign(vectors)
        quantized = self.embed[codes]
        if self.training:
            self.update(vectors, torch.ones_like(vectors[:, 0]) if weights is None else weights, codes)
        return Assignment(quantized, codes)

    @torch.no_grad()
    def update(self, vectors: Tensor, weights: Tensor, codes: Tensor | None = None) -> None:
        """One step of learning: running averages, then expiry.

        As released, the sums of a batch are divided by the *running* cluster sizes, and ``cluster_size`` is not reset
        where a codeword is replaced, so that the same ones are replaced again until they win vectors.

        Args:
            vectors: (n, C).
            weights: (n,) importance; only ratios matter.
            codes: (n,) nearest codewords, if known.
        """
        if not len(vectors):
            return
        if codes is None:
            codes = self.assign(vectors)
        self._average(vectors, weights * len(weights) / weights.sum(), codes)
        self.expire(vectors, weights)

    def _average(self, vectors: Tensor, weights: Tensor, codes: Tensor) -> None:
        size, embed = self._codebook.cluster_size[0], self.embed
        batch_size = torch.zeros_like(size).index_add_(0, codes, weights)
        batch_sum = torch.zeros_like(embed).index_add_(0, codes, vectors * weights[:, None])
        size.mul_(self.decay).add_(batch_size, alpha=1 - self.decay)
        total = size.sum()
        smoothed = (size + self.eps) / (total + len(size) * self.eps) * total
        embed.mul_(self.decay).add_(batch_sum / smoothed[:, None], alpha=1 - self.decay)

    @torch.no_grad()
    def expire(self, vectors: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Overwrite the least used codewords by the most important vectors.

        Returns:
            Numbers of the codewords that were replaced, and of the vectors that took their place.
        """
        count = min(self.k_expire, len(vectors))
        worst = self._codebook.cluster_size[0].topk(count, largest=False).indices
        best = weights.topk(count).indices
        self.embed[worst] = vectors[best]
        return worst, best

    def initialise(
        self,
        features: Tensor,
        importance: Tensor,
        *,
        steps: int = 1000,
        batch: int = 80_000,
        generator: torch.Generator | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        """Learn from features (n, C) with importance (n,), of which each step draws ``batch`` with replacement."""
        for _ in range(steps if len(features) else 0):
            drawn = torch.randint(len(features), (batch,), generator=generator, device=features.device)
            self.update(features[drawn], importance[drawn])
            if on_progress is not None:
                on_progress(1)


def group_indices(classes: VoxelClasses, codes: Tensor, codebook_size: int) -> Tensor:
    """The group (V,) int64 that each voxel is averaged with: its codeword, or one of its own for a kept voxel.

    Dropped voxels have the codeword nearest to them, which counts only where they are included on purpose.
    """
    groups = codes.clone()
    groups[classes.keep] = codebook_size + torch.arange(int(classes.keep.sum()), device=codes.device)
    return groups


@torch.no_grad()
def synchronise_groups(k0: Tensor, groups: Tensor, codebook: Tensor, non_prune: Tensor | None) -> None:
    """Set the voxels of each codeword to their mean, and the codeword with them, in place (paper section 3.4).

    A codeword thus moves by the average of its voxels' own training steps. Codewords without voxels stay.

    Args:
        k0: (V, C) features.
        groups: (V,) from :func:`group_indices`.
        codebook: (K, C).
        non_prune: (V,) voxels that count and are set. ``None`` takes all, as the released code does: dropped voxels,
            which hold 0, then pull codewords towards 0 and receive features again, and codewords without voxels become
            0 (up to the last group that has any).
    """
    size = len(codebook)
    member = groups < size
    if non_prune is None:
        codebook[: int(groups.max()) + 1] = 0
    else:
        member &= non_prune
    voxels = member.nonzero()[:, 0]
    group, values = groups[voxels], k0[voxels]
    count = torch.zeros(size, device=k0.device).index_add_(0, group, torch.ones_like(values[:, 0]))
    total = torch.zeros_like(codebook).index_add_(0, group, values)
    used = count > 0
    codebook[used] = total[used] / count[used, None]
    k0[voxels] = codebook[group]
