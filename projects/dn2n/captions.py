"""Captions of scenes and target captions of edits: plug-ins, with defaults that need no weights."""

from __future__ import annotations

from itertools import product
from typing import Protocol

from torch import Tensor

WEATHER = ("snow", "rain", "fog", "a warm sunset")
STYLES = ("a cartoon", "an oil painting")
COLOURS = ("red", "blue", "green", "purple")


class CaptionProvider(Protocol):
    """Says what an image (3, H, W) shows, such as BLIP."""

    def caption(self, image: Tensor) -> str: ...


class TargetPromptProvider(Protocol):
    """Says what edited scenes could show, such as a language model."""

    def targets(self, caption: str, count: int) -> list[str]: ...


class FixedCaption:
    """The same caption for every image."""

    def __init__(self, text: str = "a photo of a scene"):
        self.text = text

    def caption(self, image: Tensor) -> str:
        """The text."""
        return self.text


class TemplatePrompts:
    """32 targets: weather and season, by themselves, as styles, and with a colour."""

    def targets(self, caption: str, count: int) -> list[str]:
        """At most 32 different captions, always in the same order."""
        weather = [f"{caption} in {kind}" for kind in (*WEATHER, "autumn", "winter", "the cold", "the night")]
        coloured = [f"{caption}, {colour}, in {kind}" for colour, kind in product(COLOURS, WEATHER)]
        styled = [f"{caption} as {style}, {colour}" for style, colour in product(STYLES, COLOURS)]
        return [*weather, *coloured, *styled][:count]
