"""A compressed field in memory: what a file holds, and the grids it stands for (paper sections 3.3 to 3.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from projects.vqrf.classes import VoxelClasses
from projects.vqrf.quantization import Int8Tensor


@dataclass(frozen=True)
class CompressedGrids:
    """Everything that is needed to render a compressed field. V voxels in (x, y, z) order, C features, K codewords."""

    world_size: tuple[int, int, int]
    xyz_min: Tensor  # (3,) float32
    xyz_max: Tensor  # (3,) float32
    act_shift: float
    field_kwargs: dict[str, Any]  # arguments of DirectVoxGO besides the box, JSON values
    render: dict[str, Any]  # near, far, stepsize, background: JSON values
    non_prune: Tensor  # (V,) bool
    keep: Tensor  # (V,) bool
    density: Int8Tensor  # (number of non_prune,)
    kept: Int8Tensor  # (number of keep, C)
    codes: Tensor  # (number of non_prune and not keep,) int64
    codebook: Tensor  # (K, C) float16
    rgbnet: dict[str, Tensor]  # float16, by the names within ``rgbnet``

    @property
    def classes(self) -> VoxelClasses:
        """Which voxels are dropped, quantised or kept."""
        return VoxelClasses(self.non_prune, self.keep)


def decode_grids(compressed: CompressedGrids) -> tuple[Tensor, Tensor]:
    """The grids that it stands for: density (V,) and features (V, C) float32, 0 where voxels are dropped."""
    classes, codebook = compressed.classes, compressed.codebook.float()
    density = torch.zeros(len(classes.keep))
    density[classes.non_prune] = compressed.density.dequantize()
    k0 = torch.zeros(len(classes.keep), codebook.shape[1])
    k0[classes.vq] = codebook[compressed.codes]
    k0[classes.keep] = compressed.kept.dequantize()
    return density, k0


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
            which hold 0, then pull codewords towards 0 and receive features again.
    """
    size = len(codebook)
    member = groups < size
    if non_prune is not None:
        member &= non_prune
    voxels = member.nonzero()[:, 0]
    group, values = groups[voxels], k0[voxels]
    count = torch.zeros(size, device=k0.device).index_add_(0, group, torch.ones_like(values[:, 0]))
    total = torch.zeros_like(codebook).index_add_(0, group, values)
    used = count > 0
    codebook[used] = total[used] / count[used, None]
    k0[voxels] = codebook[group]
