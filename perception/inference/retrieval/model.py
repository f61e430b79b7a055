"""What retrieval asks of a model. Images are uint8 (B, height, width, 3) RGB of the model's sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class QueryFeatures:
    """What a model makes of one query: its descriptor (C,) of unit length in float32, and what `compare` needs."""

    descriptor: Tensor
    details: Any


@dataclass(frozen=True)
class Fix:
    """A place in a tile.

    Attributes:
        down, right: from the tile's middle, in sides of the tile: -0.5 to 0.5.
        probability: of the heat map's largest cell.
        heatmap: float32 (H, W), sums to 1.
    """

    down: float
    right: float
    probability: float
    heatmap: np.ndarray


class RetrievalModel(Protocol):
    """A model of MMEngine that ranks tiles for queries."""

    def encode_tiles(self, images: Tensor) -> Tensor:
        """Descriptors (B, C) of unit length in float32."""

    def encode_queries(self, images: Tensor) -> list[QueryFeatures]:
        """Descriptors and details of each query."""

    def encode_candidate(self, image: Tensor) -> Any:
        """What `compare` and `locate` need of one tile, (1, side, side, 3); the same for every query."""

    def compare(self, query: QueryFeatures, candidate: Any) -> float:
        """A similarity that is added to the descriptors' cosine, to order the best tiles anew."""

    def locate(self, query: QueryFeatures, candidate: Any) -> Fix:
        """Where in the tile the query was taken."""


def as_batch(images: list[np.ndarray], device: torch.device) -> Tensor:
    """Images of one size on a device, uint8 (B, height, width, 3)."""
    return torch.from_numpy(np.stack(images)).to(device)
