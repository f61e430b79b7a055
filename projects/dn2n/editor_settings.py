"""What editors are told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from projects.dn2n.perturbation import PerturbationSettings


@dataclass
class EditorSettings:
    """Settings of editors; each uses those that its documentation names."""

    name: str = "classical"
    """classical, identity, ip2p or null_text."""
    strength: float = 1.0
    """Of the classical editor, in [0, 1]."""
    jitter: float = 0.0
    """Share of the perturbation model that is added to each view of an edit by itself; 0 makes classical edits
    consistent."""
    weights: Path | None = None
    """Folder of the local diffusers weights of ip2p or null_text."""
    steps: int = 20
    """Denoising steps of ip2p and null_text; the paper of the latter has 50."""
    guidance_scale: float = 7.5
    """Of ip2p and null_text, by the text."""
    image_guidance_scale: float = 1.5
    """Of ip2p, by the image."""
    inner_steps: int = 10
    """Optimisation steps of null_text for each denoising step, at most."""
    cross_share: float = 0.8
    """Share of the steps in which null_text keeps the attention to words that both captions have."""
    self_share: float = 0.4
    """Share of the steps in which null_text keeps the attention between places, and so the layout."""
    perturbation: PerturbationSettings = field(default_factory=PerturbationSettings)
    """The perturbation model of the jitter."""
