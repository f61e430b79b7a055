"""Embeddings for the content filter, by name: the histogram, and CLIP with local weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from perception.engine.errors import UserError
from projects.dn2n.filtering import Embedding, HistogramEmbedding

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class ClipEmbedding:
    """CLIP through transformers, whose folder of weights is given."""

    name = "clip"

    def __init__(self, weights: Path | None):
        try:
            from transformers import CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionModelWithProjection
        except ImportError:
            raise UserError("the embedding clip needs transformers: pip install 'perception[editors]'") from None
        if weights is None or not (weights / "config.json").is_file():
            raise UserError(
                f"the embedding clip needs --clip-weights, a local folder of CLIP (with config.json), not {weights}: "
                "nothing is downloaded"
            )
        kinds = (CLIPVisionModelWithProjection, CLIPTextModelWithProjection, CLIPTokenizer)
        self._sight, self._words, self._tokenizer = from_folder("CLIP", weights, *kinds)

    @torch.no_grad()
    def images(self, images: Tensor) -> Tensor:
        """(V, 3, H, W) to (V, D)"""
        pixels = to_clip(images, self._sight.config.image_size)
        return F.normalize(self._sight(pixel_values=pixels).image_embeds, dim=1)

    @torch.no_grad()
    def text(self, text: str) -> Tensor:
        """(D,)"""
        tokens = self._tokenizer([text], padding=True, truncation=True, return_tensors="pt")
        return F.normalize(self._words(**tokens).text_embeds, dim=1)[0]


def to_clip(images: Tensor, side: int) -> Tensor:
    """Images (V, 3, H, W) in [0, 1] as CLIP and BLIP take them: (V, 3, side, side), normalised."""
    resized = F.interpolate(images, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (resized.new_tensor(value)[:, None, None] for value in (CLIP_MEAN, CLIP_STD))
    return (resized - mean) / std


def from_folder(model: str, folder: Path, *kinds: Any) -> list[Any]:
    """Models and tokenizers of transformers from a local folder.

    Args:
        model: what the folder holds, for the message.
        folder: of the weights.
        kinds: classes of transformers.

    Raises:
        UserError: it holds others, or damaged ones.
    """
    try:
        parts = [kind.from_pretrained(str(folder), local_files_only=True) for kind in kinds]
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise UserError(f"{folder} holds no {model} that transformers can load: {error}") from None
    for part in parts:
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    return parts


def make_embedding(name: str, clip_weights: Path | None = None) -> Embedding:
    """The embedding of that name, ``hist`` or ``clip``.

    Raises:
        UserError: there is none, or what it needs is missing.
    """
    if name == "hist":
        return HistogramEmbedding()
    if name == "clip":
        return ClipEmbedding(clip_weights)
    raise UserError(f"there is no embedding {name!r}; there are: hist, clip")
