"""VQRF as a nerfstudio model: DirectVoxGO's coarse and fine field, then compression, as stages of one run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes

from perception.studio.dvgo_model import DvgoModel, DvgoModelConfig
from perception.studio.scene import describe_parser
from perception.studio.scene_checks import SceneUse
from perception.studio.stages import Stage
from projects.vqrf.codebook import VectorQuantizer, group_indices
from projects.vqrf.compression import CompressedGrids, Scales, compress_field, load_into
from projects.vqrf.compression_stage import CompressionStage
from projects.vqrf.pruning import VoxelClasses
from projects.vqrf.settings import CompressionSettings, check_compression

UNTRAINED, COARSE, FINE, COMPRESSION = -1, 0, 1, 2
GROUPS = ("density", "k0", "rgbnet")


@dataclass
class VqrfModelConfig(DvgoModelConfig):
    """DirectVoxGO, then pruning, vector quantisation and joint fine-tuning."""

    _target: type = field(default_factory=lambda: VqrfModel)
    align_corners: bool = False
    """Voxel centres on the faces of the box, as in DirectVoxGO; the published VQRF checkpoints were trained without."""
    compression: CompressionSettings = field(default_factory=CompressionSettings)
    """Third stage."""
    report_split: Literal["test", "val", "none"] = "test"
    """Views on which the field is measured before and after compression."""

    free_on_resume: ClassVar[frozenset[str]] = DvgoModelConfig.free_on_resume | {"report_split"}
    sizes: ClassVar[frozenset[str]] = DvgoModelConfig.sizes | {"compression.codebook_size"}

    def stages(self) -> list[Stage]:
        """Coarse, fine, compression."""
        return [*super().stages(), CompressionStage("compression", self.compression)]

    def scene_use(self) -> SceneUse:
        """A bounded scene that the cameras surround, and the views of the report."""
        splits = () if self.report_split == "none" else (self.report_split,)
        return SceneUse(splits, self.near, self.far, surrounded=True, bounds_rays=True)


class VqrfModel(DvgoModel):
    """A DirectVoxGO field that is compressed in its last stage.

    What a checkpoint of that stage needs beyond the field are buffers: ``importance``, ``non_prune``, ``keep``,
    ``groups``, the codebook ``vq``, and of a finished run ``quantization``.
    """

    config: VqrfModelConfig

    def populate_modules(self) -> None:
        """The field, and an untrained codebook."""
        check_compression(self.config.compression)
        super().populate_modules()
        compression = self.config.compression
        self.vq = VectorQuantizer(self.config.fine.rgbnet_dim, compression.codebook_size, k_expire=compression.k_expire)
        none = torch.zeros(0)
        for name, value in {
            "importance": none,
            "non_prune": none.bool(),
            "keep": none.bool(),
            "groups": none.long(),
            "quantization": torch.zeros(0, dtype=torch.float64),
        }.items():
            self.register_buffer(name, value)
        self.dataparser: dict | None = None

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> list[TrainingCallback]:
        """The stages; the file will name the parser that read the scene."""
        callbacks = super().get_training_callbacks(attributes)
        settings = self.stages.run.manager.config
        self.dataparser = describe_parser(settings.dataparser, settings.data)
        return callbacks

    # The compressed form

    @property
    def classes(self) -> VoxelClasses:
        """Which voxels remain, and which of them keep their own features."""
        return VoxelClasses(self.non_prune, self.keep)

    def reformat(self) -> CompressedGrids:
        """Replace the field by what a file of it would decode to."""
        codes = self._nearest_codes()
        self.groups = group_indices(self.classes, codes, len(self.vq.embed))
        compressed = self._compressed(codes[self.classes.vq])
        load_into(self.field, compressed)
        return compressed

    def packed(self) -> CompressedGrids:
        """The field in its compressed form; of a finished run the one that its file holds."""
        if not len(self.quantization):
            return self._compressed(self._nearest_codes()[self.classes.vq])
        density_scale, density_zero, kept_scale, kept_zero = self.quantization.tolist()
        scales = Scales((density_scale, int(density_zero)), (kept_scale, int(kept_zero)))
        return self._compressed(self.groups[self.classes.vq], scales)

    def render_settings(self) -> dict:
        """What rendering needs to know besides the field."""
        return {
            "near": self.near,
            "far": float(self.depth_range[1]),
            "stepsize": self.config.stepsize,
            "background": self.background.tolist(),
            "dataparser": self.dataparser,
        }

    def _nearest_codes(self) -> torch.Tensor:
        """The codeword nearest to each voxel (V,); 0 for dropped voxels, unless they count in the codewords' means."""
        features = self.field.k0.table()
        if self.config.compression.sync_include_pruned:
            return self.vq.assign(features)
        codes = torch.zeros(len(features), dtype=torch.long, device=features.device)
        codes[self.non_prune] = self.vq.assign(features[self.non_prune])
        return codes

    def _compressed(self, codes: torch.Tensor, scales: Scales | None = None) -> CompressedGrids:
        return compress_field(self.field, self.classes, self.vq.embed, codes, self.render_settings(), scales)
