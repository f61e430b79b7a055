"""The numbers of the recipe: defaults are those of the forward-facing scenes at 4K."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass
class EncoderSettings:
    """First stage of forward-facing scenes: the field alone, on rays of all small images."""

    iters: int = 30_000
    """Training steps."""
    num_voxels: int = 384 * 384 * 256
    """Voxels of the final grid, all its planes together."""
    mpi_depth: int = 256
    """Planes of the grid, from the near plane to infinity."""
    pg_scale: tuple[int, ...] = (2000, 4000, 6000, 8000)
    """Steps before which the number of voxels doubles; the stage starts with `num_voxels / 2**len(pg_scale)`."""
    decay_after_scale: float = 0.1
    """Subtracted from the density's shifts at each doubling."""
    fast_color_thres: float | None = None
    """Samples whose opacity or weight is not above this are left out; by default `stepsize / mpi_depth / 5`."""
    rgbnet_dim: int = 9
    """Features per voxel."""
    rgbnet_depth: int = 3
    """Layers of the colour network."""
    rgbnet_width: int = 64
    """Hidden width of the colour network."""
    act_type: Literal["relu", "gauss", "lkrelu"] = "relu"
    """Activation of the colour network."""
    viewbase_pe: int = 0
    """Frequencies in the encoding of the viewing direction."""
    spatial_pe: int = 0
    """Frequencies in the encoding of the position."""
    mask_counts_shift: bool = True
    """Look for free space with the opacities that are rendered; the released code leaves the planes' shifts out."""
    random_background: bool = True
    """Put what a ray leaves through on a colour that is drawn anew for each ray, so that nothing stays transparent."""
    weight_entropy_last: float = 0.001
    """Weight of the entropy of the background's share in a ray."""
    weight_rgbper: float = 0.01
    """Weight of the colour error of single samples."""
    weight_distortion: float = 0.01
    """Weight of the distortion loss, which pulls the samples of a ray together."""
    weight_tv_density: float = 1e-5
    """Weight of the density's total variation."""
    weight_tv_k0: float = 1e-6
    """Weight of the features' total variation."""
    tv_dense_before: int = 10_000
    """Steps for which total variation reaches all voxels; from then on those that a ray met."""
    tv_released_axes: bool = False
    """Weigh differences along x as those between planes, and the other way round, as the released kernel does."""


@dataclass
class DecoderSettings:
    """The network that enlarges."""

    num_feat: int = 64
    """Channels of its trunk."""
    num_block: int = 5
    """Groups of three dense blocks."""
    num_grow_ch: int = 32
    """Channels that each convolution of a dense block adds."""


@dataclass
class JointSettings:
    """Last stage: field and decoder together, on patches of one image at a time."""

    iters: int = 270_000
    """Training steps."""
    decay_steps: int = 300_000
    """Steps in which the field's learning rates fall to a tenth, from where the stages before have left them."""
    rate_factor: float = 0.1 ** (22_001 / 20_000)
    """With `encoder_weights`: factor on the field's learning rates, in place of those stages."""
    weight_small: float = 1.0
    """Weight of the absolute error of the field's rendering."""
    weight_large: float = 1.0
    """Weight of the absolute error of the enlarged picture."""
    weight_perceptual: float = 0.5
    """Weight of the difference of VGG19's features; without its weights it is left out, which is said."""
    weight_style: float = 0.2
    """Weight of the difference of their Gram matrices; likewise."""
    layer_weights: tuple[float, float, float, float, float] = (0.0, 0.0, 1.0, 1.0, 1.0)
    """Weights of VGG19's convolutions 1_2, 2_2, 3_4, 4_4 and 5_4 in both."""
    weight_gan: float = 0.05
    """Weight of the adversarial loss; with 0 there is no discriminator."""
    weight_entropy_last: float = 0.001
    """Weight of the entropy of the background's share in a ray."""
    weight_rgbper: float = 0.01
    """Weight of the colour error of single samples."""
    weight_distortion: float = 0.01
    """Weight of the distortion loss."""
    discriminator_feat: int = 64
    """Channels of the discriminator at full resolution."""
    vgg_weights: Path | None = None
    """File of torchvision's VGG19 weights; by default the one in torch's cache of downloads."""

    @property
    def uses_vgg(self) -> bool:
        """Whether a loss compares VGG19's features."""
        return bool(self.weight_perceptual or self.weight_style) and any(self.layer_weights)
