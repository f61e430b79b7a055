"""The numbers of DirectVoxGO's recipe: defaults are those of the published object scenes."""

from __future__ import annotations

from dataclasses import dataclass


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
