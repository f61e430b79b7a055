"""The numbers of the recipe's last stage: defaults are those of the published object scenes."""

from __future__ import annotations

from dataclasses import dataclass

# Settings of earlier runs look for these here.
from perception.radiance.dvgo_settings import CoarseSettings as CoarseSettings
from perception.radiance.dvgo_settings import FineSettings as FineSettings
from perception.studio.errors import SceneError

MAX_CODEBOOK = 1 << 16  # codewords that a file may hold


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
