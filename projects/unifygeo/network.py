"""The whole network: two views, each with a descriptor to retrieve by and a volume to locate with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .aggregator import Aggregator
from .decoder import Location, PyramidDecoder
from .encoder import ConvNeXtEncoder, FeatureHead

SHARING = ("encoder", "head", "none")
VIEWS = ("ground", "satellite")


@dataclass
class PairOutput:
    """Everything of a paired forward, for B pairs.

    Attributes:
        ground, satellite: descriptors (B, C), not of unit length.
        location: the heat map's logits and matching scores.
        rerank_descriptors: (B, C) of the panoramas.
        rerank_maps: (B, C, H, W) of the tiles.
        ground_volume: (B, C, rows, columns) of the panoramas, to locate with.
        satellite_maps: of the tiles, see :meth:`View.locate`.
    """

    ground: Tensor
    satellite: Tensor
    location: Location
    rerank_descriptors: Tensor
    rerank_maps: Tensor
    ground_volume: Tensor
    satellite_maps: list[Tensor]


class View(nn.Module):
    """One view's encoder and task heads.

    Args:
        encoder_channels, encoder_depths, output_norm: see :class:`ConvNeXtEncoder`.
        channels: of descriptor and volume.
        aggregator, reduction, descriptor_norm, attention_norm: see :class:`Aggregator`.
        sharing: what the two tasks share: the "encoder" (published), also the "head", or "none".

    Raises:
        ValueError: unknown sharing.
    """

    def __init__(
        self,
        encoder_channels: Sequence[int] = (96, 192, 384),
        encoder_depths: Sequence[int] = (3, 3, 9),
        channels: int = 768,
        aggregator: str = "soa_gem",
        reduction: int = 2,
        descriptor_norm: bool = True,
        output_norm: bool = False,
        sharing: str = "encoder",
        attention_norm: str | None = "LN",
    ):
        super().__init__()
        if sharing not in SHARING:
            raise ValueError(f"sharing must be one of {', '.join(SHARING)}, got {sharing!r}")
        self.sharing = sharing
        self.depths = (channels, *reversed(encoder_channels))  # of the maps that `locate` gives
        self.encoder = ConvNeXtEncoder(encoder_channels, encoder_depths, output_norm)
        self.local_encoder = (
            ConvNeXtEncoder(encoder_channels, encoder_depths, output_norm) if sharing == "none" else None
        )
        self.global_head = FeatureHead(encoder_channels[-1], channels)
        self.local_head = None if sharing == "head" else FeatureHead(encoder_channels[-1], channels)
        self.aggregator = Aggregator(channels, aggregator, reduction, descriptor_norm, attention_norm)

    def describe(self, images: Tensor) -> Tensor:
        """Descriptors (B, C) of images (B, 3, H, W), not of unit length."""
        return self.aggregator(self.global_head(self.encoder(images)[-1]))

    def locate(self, images: Tensor) -> list[Tensor]:
        """Maps of images for localisation: the volume at stride 32, then the encoder's stages from the last on."""
        stages = (self.local_encoder or self.encoder)(images)
        return [(self.local_head or self.global_head)(stages[-1]), *reversed(stages)]

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """:meth:`describe` and :meth:`locate` at the cost of one encoder, where they share it."""
        if self.local_encoder is not None:
            return self.describe(images), self.locate(images)
        stages = self.encoder(images)
        features = self.global_head(stages[-1])
        volume = features if self.local_head is None else self.local_head(stages[-1])
        return self.aggregator(features), [volume, *reversed(stages)]


class UnifyGeoNet(nn.Module):
    """Panoramas and satellite tiles, to retrieve and to locate.

    The sizes of the images follow from the decoder: panoramas of 32 times ``decoder.ground_size``, square tiles.

    Args:
        view: settings of both :class:`View` modules, which share no weights.
        decoder: settings of :class:`PyramidDecoder`.

    Raises:
        ValueError: the decoder is for maps of other depths than the views give.
    """

    def __init__(self, view: dict | None = None, decoder: dict | None = None):
        super().__init__()
        self.ground = View(**(view or {}))
        self.satellite = View(**(view or {}))
        self.decoder = PyramidDecoder(**(decoder or {}))
        given = self.satellite.depths
        if given != self.decoder.channels:
            raise ValueError(
                f"the views give maps of {given} channels, but the decoder's channels are {self.decoder.channels}"
            )
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.rerank_logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, ground: Tensor, satellite: Tensor) -> PairOutput:
        """Panoramas (B, 3, H, 2 H) and the tile of each (B, 3, S, S)."""
        ground_descriptor, ground_maps = self.ground(ground)
        satellite_descriptor, satellite_maps = self.satellite(satellite)
        return PairOutput(
            ground_descriptor,
            satellite_descriptor,
            self.decoder(ground_maps[0], satellite_maps),
            self.decoder.describe(ground_maps[0]),
            self.decoder.normed_map(satellite_maps[0]),
            ground_maps[0],
            satellite_maps,
        )

    def describe(self, images: Tensor, view: str | None = None) -> Tensor:
        """Descriptors (B, C) of images of one view, not of unit length.

        Args:
            images: (B, 3, H, W).
            view: "ground" or "satellite"; by default square images are satellite tiles, others panoramas.

        Raises:
            ValueError: unknown view.
        """
        view = view or ("satellite" if images.shape[-1] == images.shape[-2] else "ground")
        if view not in VIEWS:
            raise ValueError(f"view must be one of {', '.join(VIEWS)}, got {view!r}")
        return getattr(self, view).describe(images)

    def rerank_descriptors(self, ground: Tensor) -> Tensor:
        """(B, C) of panoramas, for :func:`reranking.similarity`."""
        return self.decoder.describe(self.ground.locate(ground)[0])

    def rerank_maps(self, satellite: Tensor) -> Tensor:
        """(B, C, H, W) of tiles, for :func:`reranking.similarity`."""
        return self.decoder.normed_map(self.satellite.locate(satellite)[0])

    def locate(self, ground: Tensor, satellite: Tensor) -> Location:
        """Where in its tile each panorama was taken."""
        return self.decoder(self.ground.locate(ground)[0], self.satellite.locate(satellite))
