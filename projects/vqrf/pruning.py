"""How much voxels contribute to the training views, and which are dropped, quantised or kept (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from perception.ops.trilinear import trilinear_scatter
from perception.radiance.dvgo import DirectVoxGO
from perception.radiance.dvgo_stages import Views

OFFSET = 1e-6  # added to every score before they are accumulated


@torch.no_grad()
def importance_scores(
    field: DirectVoxGO, views: Views, *, near: float, stepsize: float, on_rays: Callable[[int], None] | None = None
) -> Tensor:
    """Sum over all rays and samples of rendering weight times trilinear weight.

    Samples that rendering leaves out, whose weight is not above the field's ``fast_color_thres``, do not count.

    Args:
        field: a trained fine field.
        views: all training rays.
        near: smallest ray parameter, in units of the direction's length.
        stepsize: distance between samples in voxels.
        on_rays: receives the number of rays of each chunk that is done.

    Returns:
        (V,) non-negative, voxels in (x, y, z) order. Its sum is that of the weights that count, up to samples at the
        box's faces.
    """
    num_voxels = field.density.grid[0, 0].numel()
    scores = torch.zeros(num_voxels, device=field.xyz_min.device)
    for _, rays_o, rays_d, _ in views:
        corners, weights = field.ray_weights(rays_o, rays_d, near=near, stepsize=stepsize)
        scores += trilinear_scatter(weights[:, None], corners)[:, 0]
        if on_rays is not None:
            on_rays(len(rays_o))
    return scores


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


def split_voxels(
    importance: Tensor, prune: float = 0.999, keep: float = 0.6, *, released_last: bool = False
) -> VoxelClasses:
    """Sort voxels (V,) into the three classes.

    Scores are compared without the offset that the thresholds contain, as released. ``prune`` 1 keeps every voxel.

    Args:
        importance: (V,) non-negative.
        prune: share of the importance that remains.
        keep: share of it in voxels that are kept without a codebook, at most ``prune``.
        released_last: with ``keep`` 0, keep the last voxel of the grid as the released code does, be it dropped or not.
            The classes can then be compared, not stored: a file holds no features of dropped voxels.

    Raises:
        ValueError: the shares are not in order, or no voxel has any importance.
    """
    if keep > prune:
        raise ValueError(f"the kept share of the importance ({keep}) must not exceed the remaining one ({prune})")
    if not bool((importance > 0).any()):
        raise ValueError("no voxel has any importance: the field renders nothing")
    non_prune = _above(importance, prune)
    kept = _above(importance, keep) & non_prune
    if released_last and keep == 0:
        kept[-1] = True
    return VoxelClasses(non_prune, kept)


def _above(importance: Tensor, share: float) -> Tensor:
    if share == 1:
        return torch.ones_like(importance, dtype=torch.bool)
    return importance > importance_threshold(importance, share)
