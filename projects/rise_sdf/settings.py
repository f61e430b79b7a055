"""The numbers of the recipe; defaults are the published ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class GridSettings:
    """The hash grid under the signed distance."""

    num_levels: int = 16
    """Levels."""
    features: int = 2
    """Features per level."""
    log2_table_size: int = 19
    """Logarithm of the entries of a hashed level."""
    base_resolution: int = 32
    """Vertices per axis of the first level."""
    per_level_scale: float = 1.447269237440378
    """Growth from level to level."""
    start_level: int = 6
    """Levels that take part from the beginning."""
    start_step: int = 6000
    """Step after which further levels join."""
    update_steps: int = 500
    """Steps from one level to the next."""
    keep_levels: bool = False
    """Levels that once took part stay when an earlier step is set, as in the released code."""


@dataclass
class GeometrySettings:
    """The signed distance, and how rays are sampled in it."""

    grid: GridSettings = field(default_factory=GridSettings)
    """The hash grid."""
    radius: float = 1.5
    """Half the side of the cube that holds the object, world units."""
    features: int = 48
    """Numbers that the network gives, the distance among them."""
    width: int = 128
    """Hidden width of the network."""
    depth: int = 2
    """Its hidden layers."""
    sphere_init: float = 0.5
    """Radius of the sphere at the beginning."""
    gradient: Literal["finite_difference", "analytic"] = "finite_difference"
    """How normals are taken from the distance."""
    variance: float = 0.3
    """The learned sharpness at the beginning."""
    cos_anneal_end: int = 10_000
    """Step from which surfaces that face away no longer count."""
    num_samples: int = 1024
    """Sections of the cube's diagonal."""
    occupancy_resolution: int = 128
    """Cells per side of the grid of occupancy."""
    occupancy_threshold: float = 0.001
    """Opacity from which a cell is occupied."""


@dataclass
class HeadSettings:
    """Widths of the networks of colours and materials."""

    width: int = 128
    """Hidden width."""
    depth: int = 4
    """Hidden layers of the networks of albedo, reflected and indirect light."""
    material_depth: int = 2
    """Hidden layers of the networks of metallic and roughness."""
    frequencies: int = 6
    """Of the encoding of positions."""
    sh_degrees: int = 5
    """Bands of spherical harmonics in the encoding of directions."""
    table_size: int = 256
    """Rows and columns of the table of reflectance."""
    albedo: tuple[int, int] | None = None
    """Width and hidden layers of the network of diffuse colours and albedo, if they are others."""
    metallic: tuple[int, int] | None = None
    """The same of the network of blending and metallic."""
    roughness: tuple[int, int] | None = None
    """The same of the network of roughness."""
    radiance: tuple[int, int] | None = None
    """The same of the network of reflected light."""
    indirect: tuple[int, int] | None = None
    """The same of the network of light from other parts of the object."""

    def size(self, head: str) -> tuple[int, int]:
        """Width and hidden layers of a network, by its name."""
        usual = self.material_depth if head in ("metallic", "roughness") else self.depth
        return getattr(self, head) or (self.width, usual)


@dataclass
class LightSettings:
    """The learned light."""

    resolution: int = 512
    """Texels per side of a face of the cube, a power of two from 64."""
    exact_solid_angle: bool = False
    """Weigh texels by their true solid angles; the published filter's are 5 to 12 % too large for diffuse light."""
    exact_pooling: bool = False
    """Derive averages of texels as they are; the published derivative is smoothed."""
    nonnegative: bool = False
    """Raise texels that become negative to 0 after each step."""


@dataclass
class IndirectSettings:
    """What mirror rays meet, for pixels of the object."""

    predict: bool = True
    """Trace them; otherwise the object neither hides nor reflects itself (indirect_pred)."""
    near: float = 0.05
    """Where they begin, world units."""
    far: float = 1.5
    """Where they end."""
    samples: int = 96
    """Places on them, both ends among these."""
    min_opacity: float = 0.5
    """Pixels below this have none."""
    relighting_threshold: float = 0.3
    """Largest roughness for which a second surface is shaded under a new light."""
    secondary_lookup: Literal["ray", "mirror"] = "ray"
    """Where that surface sees the light: along the incoming ray as in the released code, or in its mirror direction."""


@dataclass
class LossSettings:
    """Weights of losses: a number, or `start step, first value, last value, end step` of a straight rise."""

    rgb_mse: tuple[float, ...] = (10.0,)
    """Squared error of the radiance field's colours."""
    rgb_l1: tuple[float, ...] = (0.0,)
    """Absolute error of the same."""
    rgb_phys_mse: tuple[float, ...] = (10.0,)
    """Squared error of the shaded colours, in the second stage."""
    rgb_phys_l1: tuple[float, ...] = (0.0,)
    """Absolute error of the same."""
    eikonal: tuple[float, ...] = (0.05,)
    """Deviation of gradients from length 1."""
    mask: tuple[float, ...] = (0.1,)
    """Cross entropy of opacity and coverage."""
    sparsity: tuple[float, ...] = (0.01,)
    """Surfaces in free space."""
    curvature: tuple[float, ...] = (1.0,)
    """Angle between neighbouring normals."""
    normal_orientation: tuple[float, ...] = (0.05,)
    """Visible normals that face away."""
    opaque: tuple[float, ...] = (0.0,)
    """Entropy of opacity."""
    distortion: tuple[float, ...] = (0.0,)
    """Spread of weights along rays."""
    emitter_distillation: tuple[float, ...] = (0.0,)
    """Difference of the two specular renderings."""
