"""Embeddings for the content filter, by name: the histogram, and CLIP with local weights."""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from perception.engine.errors import UserError
from projects.dn2n.filtering import Embedding, HistogramEmbedding

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
CLIP_SIZE = 224


class ClipEmbedding:
    """CLIP through transformers, whose folder of weights is given."""

    name = "clip"

    def __init__(self, weights: Path | None):
        try:
            from transformers import CLIPModel, CLIPTokenizer
        except ImportError:
            raise UserError("the embedding clip needs transformers: pip install 'perception[editors]'") from None
        if weights is None or not (weights / "config.json").is_file():
            raise UserError(
                f"the embedding clip needs --clip-weights, a local folder of CLIP (with config.json), not {weights}: "
                "nothing is downloaded"
            )
        self._model = CLIPModel.from_pretrained(str(weights), local_files_only=True).eval()
        self._tokenizer = CLIPTokenizer.from_pretrained(str(weights), local_files_only=True)

    def images(self, images: Tensor) -> Tensor:
        """(V, 3, H, W) to (V, D)"""
        resized = F.interpolate(images, size=(CLIP_SIZE, CLIP_SIZE), mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (resized.new_tensor(value)[:, None, None] for value in (CLIP_MEAN, CLIP_STD))
        return F.normalize(self._model.get_image_features(pixel_values=(resized - mean) / std), dim=1).detach()

    def text(self, text: str) -> Tensor:
        """(D,)"""
        tokens = self._tokenizer([text], padding=True, truncation=True, return_tensors="pt")
        return F.normalize(self._model.get_text_features(**tokens), dim=1)[0].detach()


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
