"""Settings of DN2N's network and training. What no public source of the paper says is marked as the project's."""

from __future__ import annotations

from dataclasses import dataclass, field

from projects.dn2n.perturbation import PerturbationSettings


@dataclass
class NetworkSettings:
    """Sizes of IBRNet; the defaults are those of its released weights."""

    features: int = 32
    """Channels of the coarse and of the fine features."""
    widths: tuple[int, ...] = (64, 128, 256)
    """Channels of the feature network's stages."""
    blocks: tuple[int, ...] = (3, 4, 6)
    """Blocks of these stages."""
    coarse_samples: int = 64
    """Samples of a ray for the coarse network."""
    fine_samples: int = 64
    """Further samples for the fine network, which sees all; 0 leaves it out."""
    inverse_depth: bool = True
    """Space samples evenly in inverse depth."""
    anti_alias_pooling: bool = True
    """Weigh source views by their directions, with a learnt sharpness."""
    white: bool = False
    """Put rays on white instead of black where they meet nothing. Sources show backgrounds; IBRNet does not."""
    min_seen: int = 8
    """A ray counts in losses where more samples than this are seen by more than one source view."""


@dataclass
class TrainingSettings:
    """The training phase. All numbers are the project's; the paper's are not public."""

    iters: int = 100_000
    """Steps."""
    source_sets: int = 2
    """Perturbed source sets of each step, 1 or 2."""
    perturbation: PerturbationSettings = field(default_factory=PerturbationSettings)
    """What the source images are perturbed with."""
    offline_edits: bool = True
    """Train on edits that were made beforehand, where scenes have them (`SCENE/edits/prompts.json`): a step whose
    target stays natural takes its source sets from different ones. Without them sources are perturbed."""
    style_probability: float = 0.5
    """How often target and sources are edited alike before the sources are perturbed; otherwise they stay natural."""
    style_prompts: int = 32
    """How many of the built-in target captions those edits draw from."""
    weight_self: float = 0.1
    """Of the self-view term."""
    weight_self_depth: float = 0.0
    """Of the difference of the two source sets' depths."""
    weight_neighbour: float = 0.1
    """Of the neighbouring-view term."""
    depth_tolerance: float = 0.05
    """Difference of depths, as a share, up to which two views see the same point."""
    ramp: float = 0.1
    """Share of the steps in which the weights of these terms rise from 0."""
