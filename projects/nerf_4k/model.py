"""4K-NeRF as nerfstudio models: a field that renders small pictures, and a decoder that enlarges them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes
from torch import Tensor
from torch.nn import Parameter

from perception.radiance.metrics import psnr, ssim
from perception.studio.errors import SceneError
from perception.studio.model import RadianceModel, RadianceModelConfig
from perception.studio.pair_datamanager import PairDataManager
from perception.studio.samplers import PatchSamplerConfig
from perception.studio.scene_checks import SceneUse
from perception.studio.stages import Stage
from projects.nerf_4k.bounded import BoundedFieldConfig, BoundedFieldModel
from projects.nerf_4k.decoder import SCALES, SFTNet
from projects.nerf_4k.discriminator import UNetDiscriminatorSN
from projects.nerf_4k.forward_facing import MpiModel, MpiModelConfig
from projects.nerf_4k.joint_stage import JointStage
from projects.nerf_4k.settings import DecoderSettings, JointSettings
from projects.nerf_4k.starts import Starts, read_starts
from projects.nerf_4k.tiling import decode_in_tiles

if TYPE_CHECKING:
    from projects.nerf_4k.losses import VggFeatures


@dataclass
class EnlargingModelConfig(RadianceModelConfig):
    """What both kinds of scenes have in common: decoder, joint stage, rendering."""

    scale: int = 4
    """How many times larger than the field's renderings the pictures are: 1, 2 or 4."""
    decoder: DecoderSettings = field(default_factory=DecoderSettings)
    """The network that enlarges."""
    joint: JointSettings = field(default_factory=JointSettings)
    """The stage that trains field and decoder together."""
    encoder_weights: Path | None = None
    """Start with the joint stage, from the field of this file (the authors' fine_last.tar, or a converted one)."""
    decoder_weights: Path | None = None
    """Start the decoder from this file (the authors' sresrnet_latest.pth, or a converted one)."""
    generator_weights: Path | None = None
    """Start what the decoder shares with it from this Real-ESRNet (RealESRNet_x4plus.pth)."""
    tile_size: int = 192
    """Side of the tiles, in pixels of the small picture, in which pictures are enlarged after training."""
    tile_pad: int = 16
    """Pixels of the small picture around a tile that are enlarged with it, so that no seams show."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Numbers in which decoder and discriminator compute; weights and losses are float32. bfloat16 takes half the time
    where the hardware has it."""
    report_split: Literal["test", "val", "none"] = "test"
    """Views on which decoder and bicubic enlargement are measured at the end."""

    free_on_resume: ClassVar[frozenset[str]] = RadianceModelConfig.free_on_resume | {
        "tile_size",
        "tile_pad",
        "report_split",
        "encoder_weights",
        "decoder_weights",
        "generator_weights",
        "joint.vgg_weights",
    }
    honoured: ClassVar[frozenset[str]] = frozenset({"pipeline.datamanager.sampler"})
    sizes: ClassVar[frozenset[str]] = frozenset(
        {
            "scale",
            "decoder.num_feat",
            "decoder.num_block",
            "decoder.num_grow_ch",
            "joint.discriminator_feat",
            "joint.weight_gan",
        }
    )

    def stages(self) -> list[Stage]:
        """The field's own stages, unless it comes from a file, and the joint one."""
        before = super().stages() if self.encoder_weights is None else []
        return [*before, JointStage("joint", self.joint)]

    def scene_use(self) -> SceneUse:
        """That of the field, with pairs of images, and the views of the report."""
        splits = () if self.report_split == "none" else (self.report_split,)
        return replace(super().scene_use(), splits=splits)


class EnlargingModel(RadianceModel):
    """A field with a decoder behind it, and a discriminator where there is an adversarial loss.

    A mixin: the other base class has the field, ``render``, ``shape_of``, and what the decoder takes of a rendering.
    """

    config: EnlargingModelConfig

    def populate_modules(self) -> None:
        """The field's modules, and untrained networks."""
        config = self.config
        _check(config)
        super().populate_modules()
        settings = config.decoder
        self.decoder = SFTNet(
            scale=config.scale,
            num_feat=settings.num_feat,
            num_block=settings.num_block,
            num_grow_ch=settings.num_grow_ch,
        ).to(memory_format=torch.channels_last)
        self.discriminator = None
        if config.joint.weight_gan:
            self.discriminator = UNetDiscriminatorSN(num_feat=config.joint.discriminator_feat)
        # Whether the run compares VGG19's features, which a resumed one must do as well.
        self.register_buffer("compares_features", torch.tensor(False))
        self.starts: Starts | None = None
        self._vgg: list[VggFeatures] = []  # apart from the modules, whose weights go into checkpoints

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """Those of the field, of the decoder, and of the discriminator."""
        groups = {**super().get_param_groups(), "decoder": list(self.decoder.parameters())}
        if self.discriminator is not None:
            groups["discriminator"] = list(self.discriminator.parameters())
        return groups

    @property
    def field_groups(self) -> list[str]:
        """Names of the field's parameter groups."""
        return list(super().get_param_groups())

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> list[TrainingCallback]:
        """The hooks of the stages. All files that the run needs are read before its first step."""
        manager = attributes.pipeline.datamanager
        if not isinstance(manager, PairDataManager) or manager.config.scale != self.config.scale:
            raise SceneError(
                f"--pipeline.model.scale {self.config.scale} needs images at this scale: add "
                f"--pipeline.datamanager.scale {self.config.scale}"
            )
        if not isinstance(manager.config.sampler, PatchSamplerConfig):
            raise SceneError(
                f"--pipeline.datamanager.sampler: the decoder trains on patches, not by "
                f"{type(manager.config.sampler).__name__}"
            )
        self.starts = read_starts(self)
        if self.starts.vgg is not None:
            self._vgg = [self.starts.vgg.to(self.device)]
        return super().get_training_callbacks(attributes)

    @property
    def vgg(self) -> VggFeatures | None:
        """The network whose features the joint stage compares, if its weights are there."""
        return self._vgg[0] if self._vgg else None

    # Rendering

    @property
    def decodes(self) -> bool:
        """Whether the decoder has been trained: the joint stage has begun."""
        present = self.stages.present
        return present is not None and present.name == "joint"

    def enlarge(self, small: Tensor, depth: Tensor) -> Tensor:
        """The decoder's picture (1, 3, scale h, scale w) of a small one (1, 3, h, w) and its depth (1, 1, h, w)."""
        with self.autocast():
            return self.decoder(small.contiguous(memory_format=torch.channels_last), depth).float()

    def judge(self, picture: Tensor) -> Tensor:
        """The discriminator's logits of a picture."""
        with self.autocast():
            return self.discriminator(picture).float()

    def autocast(self) -> torch.autocast:
        """The precision of the convolutional networks."""
        enabled = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)

    @torch.no_grad()
    def get_outputs_for_camera(self, camera: Cameras, obb_box: OrientedBox | None = None) -> dict[str, Tensor]:
        """Render a camera (1) at its own size (H, W).

        Returns:
            ``rgb`` (H, W, 3), the decoder's picture, clamped to [0, 1]; ``rgb_bicubic`` (H, W, 3), what bicubic
            enlargement makes of the same small rendering; ``accumulation`` and ``depth`` (H, W, 1) of that. Until the
            joint stage begins there is no decoder, and both pictures are the latter.
        """
        height, width = int(camera.height), int(camera.width)
        small = smaller_camera(camera, self.config.scale).to(self.device)
        rays = small.generate_rays(camera_indices=0, keep_shape=True, obb_box=obb_box)
        parts = self._render_small(rays)
        scale = self.config.scale
        bicubic = _bicubic(parts["picture"], scale)
        rgb = bicubic
        if self.decodes:
            pictures = (_as_batch(parts[name]) for name in ("decoded", "condition"))
            size, pad = self.config.tile_size, self.config.tile_pad
            with self.autocast():
                rgb = decode_in_tiles(self.decoder, *pictures, tile_size=size, tile_pad=pad)[0].movedim(0, -1)
        large = {"rgb": rgb.clamp(0, 1), "rgb_bicubic": bicubic.clamp(0, 1)}
        for name in ("accumulation", "depth"):
            large[name] = parts[name].repeat_interleave(scale, 0).repeat_interleave(scale, 1)
        return {name: value[:height, :width].to(self.device) for name, value in large.items()}

    def _render_small(self, rays: RayBundle) -> dict[str, Tensor]:
        """``picture``, what the decoder takes of it (``decoded``), ``condition``, ``accumulation`` and ``depth`` of
        rays (h, w), all (h, w, C) on the CPU."""
        flat, chunks = rays.flatten(), []
        for start in range(0, len(flat), self.config.eval_num_rays_per_chunk):
            part = flat[start : start + self.config.eval_num_rays_per_chunk]
            rendering = self.render(part)
            found = {
                "picture": rendering.rgb_marched,
                "decoded": self.small_picture(rendering),
                "condition": self.small_depth(rendering)[:, None],
                **self.shape_of(rendering, part),
            }
            chunks.append({name: value.cpu() for name, value in found.items()})
        names = chunks[0]
        return {name: torch.cat([chunk[name] for chunk in chunks]).view(*rays.shape, -1) for name in names}

    def get_image_metrics_and_images(self, outputs: dict, batch: dict) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Metrics of the decoder's picture, and those of bicubic enlargement beside them; the pictures show truth,
        decoder and bicubic enlargement from left to right."""
        metrics, images = super().get_image_metrics_and_images(outputs, batch)
        target, bicubic = self.target(batch), outputs["rgb_bicubic"]
        metrics["psnr_bicubic"] = float(psnr(bicubic, target))
        if "ssim" in metrics:
            metrics["ssim_bicubic"] = float(ssim(bicubic, target))
        return metrics, {**images, "img": torch.cat([images["img"], bicubic], 1)}


@dataclass
class Nerf4kModelConfig(EnlargingModelConfig, MpiModelConfig):
    """4K-NeRF for forward-facing scenes."""

    _target: type = field(default_factory=lambda: Nerf4kModel)

    sizes: ClassVar[frozenset[str]] = EnlargingModelConfig.sizes | MpiModelConfig.sizes


class Nerf4kModel(EnlargingModel, MpiModel):
    """See :class:`Nerf4kModelConfig`."""

    config: Nerf4kModelConfig


@dataclass
class Nerf4kBoundedModelConfig(EnlargingModelConfig, BoundedFieldConfig):
    """4K-NeRF for bounded scenes that cameras surround."""

    _target: type = field(default_factory=lambda: Nerf4kBoundedModel)

    sizes: ClassVar[frozenset[str]] = EnlargingModelConfig.sizes | BoundedFieldConfig.sizes


class Nerf4kBoundedModel(EnlargingModel, BoundedFieldModel):
    """See :class:`Nerf4kBoundedModelConfig`."""

    config: Nerf4kBoundedModelConfig


def smaller_camera(camera: Cameras, scale: int) -> Cameras:
    """The camera (1) whose picture, ``scale`` times enlarged, covers that of ``camera``: its sides are rounded up."""
    return replace(
        camera,
        fx=camera.fx / scale,
        fy=camera.fy / scale,
        cx=camera.cx / scale,
        cy=camera.cy / scale,
        width=-(-camera.width // scale),
        height=-(-camera.height // scale),
    )


def _check(config: EnlargingModelConfig) -> None:
    if config.scale not in SCALES:
        raise SceneError(f"--pipeline.model.scale must be 1, 2 or 4, not {config.scale}")
    if config.tile_size < 1 or config.tile_pad < 0:
        raise SceneError(
            f"--pipeline.model.tile-size must be at least 1 and --pipeline.model.tile-pad at least 0, not "
            f"{config.tile_size} and {config.tile_pad}"
        )
    if config.decoder_weights is not None and config.generator_weights is not None:
        raise SceneError("--pipeline.model.decoder-weights and --generator-weights both start the decoder: give one")


def _as_batch(picture: Tensor) -> Tensor:
    return picture.movedim(-1, 0)[None]  # (h, w, C) -> (1, C, h, w)


def _bicubic(picture: Tensor, scale: int) -> Tensor:
    if scale == 1:
        return picture
    return F.interpolate(_as_batch(picture), scale_factor=scale, mode="bicubic", align_corners=False)[0].movedim(0, -1)
