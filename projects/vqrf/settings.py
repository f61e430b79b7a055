"""The numbers of the recipe, stage by stage: defaults are those of the published object scenes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from perception.radiance.grids import grid_resolution
from perception.studio.errors import SceneError

MAX_CODEBOOK = 1 << 16  # codewords that a file may hold


@dataclass
class CoarseSettings:
    """First stage: find out where something is."""

    iters: int = 5000
    """Training steps."""
    num_voxels: int = 1_024_000
    """Voxels of the grid, which fills the box around all viewing frusta."""
    alpha_init: float = 1e-6
    """Opacity of a voxel before training."""
    fast_color_thres: float = 1e-7
    """Samples whose opacity or weight is not above this are left out."""
    weight_entropy_last: float = 0.01
    """Weight of the entropy of the background's share in a ray."""
    weight_rgbper: float = 0.1
    """Weight of the colour error of single samples."""
    per_voxel_lr: bool = True
    """Scale the density's learning rate by the number of views that see a voxel; drop voxels that two or fewer see."""
    view_count_stride: int = 1
    """Count views with every n-th row and column of pixels (the paper takes 2 for Tanks&Temples)."""


@dataclass
class FineSettings:
    """Second stage: the field itself, in the box that the first one found."""

    iters: int = 20000
    """Training steps."""
    num_voxels: int = 160**3
    """Voxels of the final grid."""
    pg_scale: tuple[int, ...] = (1000, 2000, 3000, 4000)
    """Steps before which the number of voxels doubles; the stage starts with `num_voxels / 2**len(pg_scale)`."""
    decay_after_scale: float = 1.0
    """Subtracted from the density's shift at each doubling."""
    alpha_init: float = 1e-2
    """Opacity of a voxel before training."""
    fast_color_thres: float = 1e-4
    """Samples whose opacity or weight is not above this are left out."""
    bbox_thres: float = 1e-3
    """The box is that of the coarse voxels with a higher opacity."""
    world_bound_scale: float = 1.05
    """Factor by which that box is enlarged."""
    mask_cache_thres: float = 1e-3
    """Coarse voxels around which no opacity reaches this are free space."""
    rgbnet_dim: int = 12
    """Features per voxel."""
    rgbnet_depth: int = 3
    """Layers of the colour network."""
    rgbnet_width: int = 128
    """Hidden width of the colour network."""
    viewbase_pe: int = 4
    """Frequencies in the encoding of the viewing direction."""
    weight_entropy_last: float = 0.001
    """Weight of the entropy of the background's share in a ray."""
    weight_rgbper: float = 0.01
    """Weight of the colour error of single samples."""


@dataclass
class CompressionSettings:
    """Third stage: prune, quantise, fine-tune."""

    iters: int = 9999
    """Joint fine-tuning steps."""
    importance_prune: float = 0.999
    """Share of the total importance that the remaining voxels carry."""
    importance_keep: float = 0.6
    """Share of the total importance that the voxels carry whose features are kept without a codebook."""
    codebook_size: int = 4096
    """Codewords; a power of two."""
    codebook_iters: int = 1000
    """Steps of the codebook's initialisation."""
    codebook_batch: int = 80_000
    """Voxels drawn in each of them."""
    k_expire: int = 10
    """Least used codewords that are replaced after each of them."""
    lr_factor: float = 5.0
    """Factor on all learning rates of the end of the second stage."""
    sync_every: int = 10
    """Steps after which voxels of one codeword are set to their mean."""
    sync_include_pruned: bool = False
    """Count pruned voxels in these means, as the released code does; they then pull codewords towards 0."""


def check_compression(settings: CompressionSettings) -> None:
    """Raise where the last stage could not work, before the stages in front of it are trained.

    Raises:
        SceneError: the message names the option.
    """
    keep, prune = settings.importance_keep, settings.importance_prune
    if not 0 <= keep <= prune <= 1:
        raise SceneError(f"importance-keep ({keep}) must not exceed importance-prune ({prune}), both in [0, 1]")
    if not 1 <= settings.codebook_size <= MAX_CODEBOOK:
        raise SceneError(f"codebook-size must lie between 1 and {MAX_CODEBOOK}, not {settings.codebook_size}")
    if not 0 <= settings.k_expire <= settings.codebook_size:
        raise SceneError(
            f"k-expire ({settings.k_expire}) must lie between 0 and codebook-size {settings.codebook_size}"
        )
    for name in ("codebook_iters", "codebook_batch", "sync_every"):
        if (count := getattr(settings, name)) < 1:
            raise SceneError(f"{name.replace('_', '-')} must be at least 1, not {count}")


def check_grids(coarse: CoarseSettings, fine: FineSettings, low: Tensor, high: Tensor) -> None:
    """Raise where the scene's box from ``low`` to ``high`` (3,) cannot be filled with as many voxels as are asked for.

    Raises:
        SceneError: the message names the option.
    """
    for stage, settings in (("coarse", coarse), ("fine", fine)):
        try:
            grid_resolution(low, high, settings.num_voxels)
        except ValueError as error:
            raise SceneError(f"--pipeline.model.{stage}.num-voxels: {error}") from None
