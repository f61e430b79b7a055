"""Editors of 2D images behind one protocol, and the registry of them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Protocol

import torch
from kornia.color import hsv_to_rgb, rgb_to_grayscale, rgb_to_hsv
from kornia.filters import bilateral_blur, sobel
from torch import Tensor

from perception.engine.errors import UserError
from projects.dn2n.diffusion import InstructPix2Pix, NullText
from projects.dn2n.editor_settings import EditorSettings
from projects.dn2n.perturbation import perturb_views, seeded


class ImageEditor(Protocol):
    """Edits images by a text."""

    name: str
    version: int  # raised when the same call gives other images
    deterministic: bool
    requires_weights: bool

    def edit(self, images: Tensor, prompt: str, source_caption: str | None, seed: int, view_ids: list[int]) -> Tensor:
        """Edited images (V, 3, H, W) in [0, 1].

        Args:
            images: (V, 3, H, W) in [0, 1].
            prompt: target caption, or an instruction where the editor takes one.
            source_caption: of the images as they are, where the editor uses it.
            seed: of the editor's draws.
            view_ids: numbers of the views; an image's edit depends on its own number alone.
        """
        ...


class IdentityEditor:
    """Leaves images as they are."""

    name, version, deterministic, requires_weights = "identity", 1, True, False

    def __init__(self, settings: EditorSettings):
        pass

    def edit(self, images, prompt, source_caption, seed, view_ids) -> Tensor:
        """The images themselves."""
        return images


class ClassicalEditor:
    """Colour and texture operations that are chosen by words of the prompt.

    Uses ``strength``, ``jitter`` and ``perturbation`` of the settings. Without a known word the seed draws a matrix of
    colours. :func:`operations_of` says which a prompt chooses.
    """

    name, version, deterministic, requires_weights = "classical", 1, True, False

    def __init__(self, settings: EditorSettings):
        for option in ("strength", "jitter"):
            if not 0 <= getattr(settings, option) <= 1:
                raise UserError(f"the editor's {option} must be in [0, 1], not {getattr(settings, option)}")
        self.settings = settings

    def edit(self, images: Tensor, prompt: str, source_caption: str | None, seed: int, view_ids: list[int]) -> Tensor:
        """See :class:`ImageEditor`."""
        edited = images
        for operation in operations_of(prompt) or ("default",):
            if operation == "default":
                edited = _random_matrix(edited, self.settings.strength, seed)
            elif operation in COLOURS:
                edited = _to_colour(edited, COLOURS[operation], self.settings.strength)
            else:
                edited = OPERATIONS[operation](edited, self.settings.strength)
            edited = edited.clamp(0, 1)
        if self.settings.jitter:
            edited = perturb_views(
                edited, self.settings.perturbation, seed=seed, views=view_ids, strength=self.settings.jitter
            )
        return edited


def operations_of(prompt: str) -> tuple[str, ...]:
    """The operations that a prompt chooses, in the order in which they are applied: colours, styles, weather."""
    words = set(re.findall(r"[a-z]+", prompt.lower()))
    colours = tuple(colour for colour in COLOURS if colour in words)
    return (*colours, *(group for group, known in WORDS.items() if words & known))


def _snow(x: Tensor, s: float) -> Tensor:
    lum = rgb_to_grayscale(x)
    grey = torch.lerp(x, lum.expand_as(x), 0.6 * s)
    ramp = ((lum - 0.35) / 0.65).clamp(0, 1)
    smooth = ramp * ramp * (3 - 2 * ramp)
    return grey + s * 0.8 * smooth * (1 - grey)


def _night(x: Tensor, s: float) -> Tensor:
    tint = x.new_tensor([0.55, 0.6, 0.8])[:, None, None]
    return torch.lerp(x, x**1.6 * tint, s)


def _autumn(x: Tensor, s: float) -> Tensor:
    matrix = x.new_tensor([[0.75, 0.55, 0.0], [0.2, 0.55, 0.05], [0.0, 0.15, 0.55]])
    return torch.lerp(x, torch.einsum("ij,vjhw->vihw", matrix, x), s)


def _gain(*gain: float) -> Callable[[Tensor, float], Tensor]:
    return lambda x, s: torch.lerp(x, x * x.new_tensor(gain)[:, None, None], s)


def _fog(x: Tensor, s: float) -> Tensor:
    return torch.lerp(x, torch.full_like(x, 0.8), 0.5 * s)


def _cartoon(x: Tensor, s: float) -> Tensor:
    smooth = bilateral_blur(x, (5, 5), 0.1, (1.5, 1.5))
    flat = (smooth * 5).round() / 5  # six levels
    edges = sobel(rgb_to_grayscale(x)).clamp(0, 1)
    return torch.lerp(x, flat * (1 - 0.7 * (2 * edges).clamp(max=1)), s)


def _to_colour(x: Tensor, hue: float, s: float) -> Tensor:
    """Turns the hue of what has colour, and gives what has little a tint of it."""
    _, saturation, value = rgb_to_hsv(x).unbind(-3)
    target = torch.stack([torch.full_like(value, math.radians(hue)), saturation.clamp(min=0.5), value], -3)
    mask = (0.35 + 0.65 * (saturation / 0.25).clamp(0, 1))[:, None]
    return torch.lerp(x, hsv_to_rgb(target), s * mask)


def _random_matrix(x: Tensor, s: float, seed: int) -> Tensor:
    matrix = torch.eye(3) + 0.25 * s * torch.randn(3, 3, generator=seeded(seed, 17))
    return torch.einsum("ij,vjhw->vihw", matrix.to(x), x)


OPERATIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "cartoon": _cartoon,
    "snow": _snow,
    "night": _night,
    "autumn": _autumn,
    "warm": _gain(1.15, 1.0, 0.8),
    "cold": _gain(0.85, 1.0, 1.2),
    "fog": _fog,
}
WORDS: dict[str, set[str]] = {
    "cartoon": {"sketch", "cartoon", "oil", "painting", "drawing"},
    "snow": {"snow", "snowy", "winter"},
    "night": {"rain", "rainy", "night"},
    "autumn": {"autumn", "gold", "golden", "fall"},
    "warm": {"sunset", "warm"},
    "cold": {"cold"},
    "fog": {"fog", "foggy", "mist"},
}
COLOURS = {"red": 0.0, "orange": 30.0, "yellow": 55.0, "green": 120.0, "cyan": 180.0, "blue": 225.0, "purple": 275.0}
"""Hues in degrees."""


def make_editor(settings: EditorSettings) -> ImageEditor:
    """The editor of these settings.

    Raises:
        UserError: there is none of that name, or what it needs is missing.
    """
    if settings.name not in EDITORS:
        raise UserError(f"there is no editor {settings.name!r}; there are: {', '.join(EDITORS)}")
    return EDITORS[settings.name](settings)


EDITORS: dict[str, Callable[[EditorSettings], ImageEditor]] = {
    "classical": ClassicalEditor,
    "identity": IdentityEditor,
    "ip2p": InstructPix2Pix,
    "null_text": NullText,
}
"""By name; a further editor is one more entry."""
