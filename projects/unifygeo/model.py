"""UnifyGeo as an MMEngine model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import MODELS
from torch import Tensor

from perception.datasets.view_transforms import GeoSample
from perception.inference.retrieval.model import Fix, QueryFeatures

from .losses import map_cross_entropy, matching_losses, rerank_loss, retrieval_loss
from .network import UnifyGeoNet
from .reranking import similarity
from .targets import LABEL_SIZE, target_maps, turned


@MODELS.register_module()
class ViewPreprocessor(BaseDataPreprocessor):
    """Stacks and normalises the views of a batch.

    Args:
        mean, std: of RGB in [0, 255].
    """

    def __init__(
        self,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
        non_blocking: bool = False,
    ):
        super().__init__(non_blocking=non_blocking)
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """``inputs`` of lists of uint8 (3, H, W) by view become float32 (B, 3, H, W)."""
        data = self.cast_data(data)
        data["inputs"] = {view: self.normalise(torch.stack(list(some))) for view, some in data["inputs"].items()}
        return data

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) RGB to float32 of ImageNet's mean and deviation."""
        return (images.float() - self.mean) / self.std


@MODELS.register_module()
class UnifyGeo(BaseModel):
    """Retrieval and localisation of panoramas in satellite tiles (arXiv 2505.07622).

    Args:
        network: settings of :class:`~projects.unifygeo.network.UnifyGeoNet`.
        label_sigma: of the target maps, in pixels of the network's tiles.
        match_levels: levels of the decoder whose scores are trained, 0 the coarsest.
        match_temperature, match_threshold: see :func:`~projects.unifygeo.losses.matching_loss`.
        label_smoothing: of the retrieval and re-ranking losses.
        localization_weight, matching_weight, rerank_weight: of the losses; a loss of weight 0 is not computed.
            ``matching_weight`` is relative to the heat map's, inside ``localization_weight``.
        mask_semi_positive: leave semi-positive tiles out of the negatives.
        rerank_topk: tiles of each query that an evaluation orders anew.
        data_preprocessor, init_cfg: as in MMEngine.

    Raises:
        ValueError: a level that the decoder does not have.
    """

    def __init__(
        self,
        network: dict | None = None,
        label_sigma: float = 4.0,
        match_levels: Sequence[int] = (0, 1, 2, 3),
        match_temperature: float = 0.1,
        match_threshold: float = 1e-2,
        label_smoothing: float = 0.1,
        localization_weight: float = 1.0,
        matching_weight: float = 1.0,
        rerank_weight: float = 1.0,
        mask_semi_positive: bool = False,
        rerank_topk: int = 5,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(data_preprocessor or dict(type=ViewPreprocessor), init_cfg)
        self.network = UnifyGeoNet(**(network or {}))
        levels = len(self.network.decoder.channels)
        if not match_levels or not set(match_levels) <= set(range(levels)):
            raise ValueError(f"match_levels must be of 0 to {levels - 1}, got {tuple(match_levels)}")
        self.label_sigma, self.match_levels = label_sigma, tuple(match_levels)
        self.match_temperature, self.match_threshold = match_temperature, match_threshold
        self.label_smoothing, self.mask_semi_positive = label_smoothing, mask_semi_positive
        self.localization_weight, self.matching_weight = localization_weight, matching_weight
        self.rerank_weight, self.rerank_topk = rerank_weight, rerank_topk

    def forward(
        self, inputs: dict[str, Tensor], data_samples: list[GeoSample] | None = None, mode: str = "tensor"
    ) -> dict[str, Tensor] | list[GeoSample]:
        """A step.

        Args:
            inputs: normalised (B, 3, H, W) of ``ground`` and ``satellite``; for prediction also of one view alone.
            data_samples: B samples.
            mode: "loss" (weighted terms by name), "predict" (samples with ``descriptor`` and, of pairs, also
                ``rerank_descriptor`` and ``cell``, the row and column of the heat map's maximum), or "tensor" (what the
                network gives, by name).
        """
        if mode == "loss":
            return self.loss(inputs, data_samples)
        if mode == "predict":
            return self.predict(inputs, data_samples)
        output = self.network(inputs["ground"], inputs["satellite"])
        return dict(
            grd_global=output.ground,
            grd_volume=output.ground_volume,
            sat_global=output.satellite,
            sat_pyramid=output.satellite_maps,
            scores=output.location.scores,
            logits=output.location.logits,
            rerank_descriptors=output.rerank_descriptors,
            rerank_maps=output.rerank_maps,
        )

    def loss(self, inputs: dict[str, Tensor], data_samples: list[GeoSample]) -> dict[str, Tensor]:
        """Weighted terms of a batch of pairs."""
        output = self.network(inputs["ground"], inputs["satellite"])
        excluded = semi_positives(data_samples).to(output.ground.device) if self.mask_semi_positive else None
        losses = dict(
            loss_ret=retrieval_loss(
                output.ground, output.satellite, self.network.logit_scale.exp(), self.label_smoothing, excluded
            )
        )
        if self.localization_weight:
            targets = self._targets(data_samples, inputs["satellite"])
            match = matching_losses(
                output.location.scores, targets, self.match_levels, self.match_temperature, self.match_threshold
            )
            losses["loss_ce"] = self.localization_weight * map_cross_entropy(output.location.logits, targets)
            losses["loss_match"] = self.localization_weight * self.matching_weight * match
        if self.rerank_weight:
            rerank = rerank_loss(
                output.rerank_descriptors,
                output.rerank_maps,
                self.network.rerank_logit_scale.exp(),
                self.label_smoothing,
                excluded,
            )
            losses["loss_rerank"] = self.rerank_weight * rerank
        return losses

    @torch.no_grad()
    def predict(self, inputs: dict[str, Tensor], data_samples: list[GeoSample]) -> list[GeoSample]:
        """Descriptors of unit length in float32, and where cameras are in their tiles."""
        view = "ground" if "ground" in inputs else "satellite"
        for sample, descriptor in zip(data_samples, F.normalize(self.network.describe(inputs[view], view).float())):
            sample.set_data(dict(descriptor=descriptor))
        if len(inputs) < 2:
            return data_samples
        maps = self.network.ground.locate(inputs["ground"])
        # The maximum of the logits in float32: probabilities of half types tie.
        logits = self.network.decoder(maps[0], self.network.satellite.locate(inputs["satellite"])).logits.float()
        side = inputs["satellite"].shape[-1]
        cells = torch.stack([logits.argmax(1) // side, logits.argmax(1) % side], 1)
        for sample, descriptor, cell in zip(data_samples, self.network.decoder.describe(maps[0]), cells):
            sample.set_data(dict(rerank_descriptor=F.normalize(descriptor.float(), dim=0), cell=cell))
        return data_samples

    @property
    def descriptor_size(self) -> int:
        """C of the descriptors."""
        return self.network.satellite.global_head.downsample[1].out_channels

    def encode_tiles(self, images: Tensor) -> Tensor:
        """See :class:`~perception.inference.retrieval.model.RetrievalModel`."""
        return F.normalize(self.network.describe(self._normalised(images), "satellite").float())

    def encode_queries(self, images: Tensor) -> list[QueryFeatures]:
        """See :class:`~perception.inference.retrieval.model.RetrievalModel`."""
        descriptors, maps = self.network.ground(self._normalised(images))
        rerank = self.network.decoder.describe(maps[0]).float()
        return [QueryFeatures(*parts) for parts in zip(F.normalize(descriptors.float()), zip(maps[0], rerank))]

    def encode_candidate(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """The maps of one tile, and the one that re-ranks."""
        maps = self.network.satellite.locate(self._normalised(image))
        return maps, self.network.decoder.normed_map(maps[0]).float()

    def compare(self, query: QueryFeatures, candidate: tuple[list[Tensor], Tensor]) -> float:
        """The largest cosine with any cell of the tile."""
        return float(similarity(query.details[1][None], candidate[1])[0, 0])

    def locate(self, query: QueryFeatures, candidate: tuple[list[Tensor], Tensor]) -> Fix:
        """The heat map's maximum."""
        logits = self.network.decoder(query.details[0][None], candidate[0]).logits[0].float()
        side = math.isqrt(len(logits))
        row, column = divmod(int(logits.argmax()), side)
        heatmap = logits.softmax(0).view(side, side).cpu().numpy()
        # The cells stand for places from one edge of the tile to the other, see `targets`.
        down, right = (place / (side - 1) - 0.5 for place in (row, column))
        return Fix(down, right, float(heatmap.max()), heatmap)

    def _normalised(self, images: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) RGB as the network takes them."""
        return self.data_preprocessor.normalise(images.permute(0, 3, 1, 2).contiguous())

    def errors(self, samples: Sequence[GeoSample], side: int) -> Tensor:
        """Distances in metres between predicted cells and the peaks of the target maps, both of a tile of ``side``."""
        peaks = target_maps(_offsets(samples), side, self.label_sigma).flatten(1).argmax(1)
        places = torch.stack([peaks // side, peaks % side], 1)
        cells = torch.stack([sample.cell for sample in samples]).to(places)
        metres = torch.tensor([sample.metres_per_pixel for sample in samples], dtype=torch.float64)
        return (cells - places).double().norm(dim=1) * metres * LABEL_SIZE / side

    def _targets(self, samples: Sequence[GeoSample], satellite: Tensor) -> Tensor:
        device = satellite.device
        maps = target_maps(_offsets(samples).to(device), satellite.shape[-1], self.label_sigma)
        flips = torch.tensor([bool(sample.get("flip", False)) for sample in samples])
        turns = torch.tensor([int(sample.get("quarter_turns", 0)) for sample in samples])
        return turned(maps, flips, turns)


def semi_positives(samples: Sequence[GeoSample]) -> Tensor:
    """Bool (B, B): the column's tile is a semi-positive of the row's panorama."""
    tiles = torch.tensor([sample.tile for sample in samples])
    semi = torch.tensor([sample.semi_tiles for sample in samples])
    return (semi[:, :, None] == tiles).any(1)


def _offsets(samples: Sequence[GeoSample]) -> Tensor:
    return torch.tensor([sample.offset for sample in samples], dtype=torch.float64)
