"""Captions of scenes and target captions of edits: plug-ins, with defaults that need no weights."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from perception.engine.errors import UserError
from projects.dn2n.embeddings import from_folder, to_clip

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


class BlipCaption:
    """BLIP through transformers, from a local folder of weights.

    Raises:
        UserError: transformers is not installed, or the folder holds no such weights.
    """

    MOST_WORDS = 30  # tokens

    def __init__(self, weights: Path):
        try:
            from transformers import AutoTokenizer, BlipForConditionalGeneration
        except ImportError:
            raise UserError("captions by BLIP need transformers: pip install 'perception[editors]'") from None
        if not (weights / "config.json").is_file():
            raise UserError(
                f"--caption-weights must be a local folder of BLIP (with config.json), not {weights}: nothing is "
                "downloaded"
            )
        self._model, self._tokenizer = from_folder("BLIP", weights, BlipForConditionalGeneration, AutoTokenizer)

    @torch.no_grad()
    def caption(self, image: Tensor) -> str:
        """What an image (3, H, W) in [0, 1] shows."""
        pixels = to_clip(image[None], self._model.config.vision_config.image_size)
        words = self._model.generate(pixel_values=pixels, max_new_tokens=self.MOST_WORDS)
        return self._tokenizer.decode(words[0], skip_special_tokens=True).strip()


class TemplatePrompts:
    """32 targets: weather and season, by themselves, as styles, and with a colour."""

    def targets(self, caption: str, count: int) -> list[str]:
        """At most 32 different captions, always in the same order."""
        weather = [f"{caption} in {kind}" for kind in (*WEATHER, "autumn", "winter", "the cold", "the night")]
        coloured = [f"{caption}, {colour}, in {kind}" for colour, kind in product(COLOURS, WEATHER)]
        styled = [f"{caption} as {style}, {colour}" for style, colour in product(STYLES, COLOURS)]
        return [*weather, *coloured, *styled][:count]
