"""Which voxels are dropped, quantised or kept, by their share of the total importance (paper section 3.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

OFFSET = 1e-6  # added to every score before they are accumulated


class VoxelClasses(NamedTuple):
    """Three classes of V voxels in (x, y, z) order."""

    non_prune: Tensor  # (V,) bool: not dropped
    keep: Tensor  # (V,) bool: features stored without a codebook; a subset of non_prune

    @property
    def vq(self) -> Tensor:
        """(V,) bool: features replaced by codewords."""
        return self.non_prune & ~self.keep


def importance_threshold(importance: Tensor, share: float) -> Tensor:
    """The score above which voxels together carry ``share`` of the total importance.

    Args:
        importance: (V,) non-negative.
        share: in [0, 1].

    Raises:
        ValueError: ``share`` is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share of the importance must lie between 0 and 1, not {share}")
    scores = (importance + OFFSET).sort().values
    # float64: a float32 running sum over millions of voxels stops growing long before its end.
    cumulative = scores.double().cumsum(0)
    below = cumulative / cumulative[-1] > 1 - share
    first = int(below.int().argmax()) if bool(below.any()) else len(scores) - 1
    return scores[first]


def split_voxels(importance: Tensor, prune: float = 0.999, keep: float = 0.6) -> VoxelClasses:
    """Sort voxels (V,) into the three classes.

    Scores are compared without the offset that the thresholds contain, as released. ``prune`` 1 keeps every voxel.

    Args:
        importance: (V,) non-negative.
        prune: share of the importance that remains.
        keep: share of it in voxels that are kept without a codebook, at most ``prune``.

    Raises:
        ValueError: the shares are not in order, or no voxel has any importance.
    """
    if keep > prune:
        raise ValueError(f"the kept share of the importance ({keep}) must not exceed the remaining one ({prune})")
    if not bool((importance > 0).any()):
        raise ValueError("no voxel has any importance: the field renders nothing")
    non_prune = _above(importance, prune)
    return VoxelClasses(non_prune, _above(importance, keep) & non_prune)


def _above(importance: Tensor, share: float) -> Tensor:
    if share == 1:
        return torch.ones_like(importance, dtype=torch.bool)
    return importance > importance_threshold(importance, share)
