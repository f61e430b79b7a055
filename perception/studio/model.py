"""What the models of this suite's radiance methods have in common."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes
from nerfstudio.model_components import renderers
from nerfstudio.models.base_model import Model, ModelConfig
from nerfstudio.utils import colormaps
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from perception.radiance.metrics import psnr, ssim
from perception.studio.errors import SceneError
from perception.studio.scene_checks import PLAIN_USE, SceneUse
from perception.studio.settings import OlderSettings
from perception.studio.stages import UNTRAINED, Stage, StageMachine, StageSchedule, schedule_of

if TYPE_CHECKING:
    from perception.studio.perceptual import Lpips

OPAQUE = 0.5  # what nerfstudio's exporters take for a surface
MOST_EMPTY_BATCHES = 20
ALEXNET_FILE = "alexnet-owt-7be5be79.pth"


@dataclass
class RadianceModelConfig(OlderSettings, ModelConfig):
    """Settings that every radiance model has."""

    _target: type = field(default_factory=lambda: RadianceModel)
    enable_collider: bool = False
    """Whether nerfstudio sets near and far planes; these models bound rays themselves."""
    eval_num_rays_per_chunk: int = 8192
    """Rays that are rendered at once."""
    compute_lpips: bool = True
    """Measure LPIPS where its AlexNet weights are on this machine; they are never downloaded."""
    lpips_weights: Path | None = None
    """File of torchvision's AlexNet weights; by default the one in torch's cache of downloads."""

    # Names of settings, see `perception.studio.resume`: those that a resumed run may change at any time, and those that
    # shape what is in a checkpoint from its first step. Others that lie under the name of a stage may change until it
    # begins, and the rest must stay.
    free_on_resume: ClassVar[frozenset[str]] = frozenset(
        {"eval_num_rays_per_chunk", "compute_lpips", "lpips_weights", "prompt"}
    )
    sizes: ClassVar[frozenset[str]] = frozenset()
    # Whether a resumed run may have more training views than before.
    views_may_be_added: ClassVar[bool] = False

    # Options of nerfstudio's that are refused unless a method names them here, see `perception.studio.options`.
    honoured: ClassVar[frozenset[str]] = frozenset()
    # Further options that this method refuses, with what to do instead.
    refused: ClassVar[Mapping[str, str]] = {}

    def stages(self) -> list[Stage]:
        """The stages of training, in order; none where a method trains in one piece.

        A stage has the name of the field in which its settings are.
        """
        return []

    def schedule(self) -> StageSchedule:
        """The stages and their steps.

        Raises:
            ValueError: a stage has no steps.
        """
        return schedule_of(self.stages())

    def scene_use(self) -> SceneUse:
        """What the method asks of a scene, which is checked before training."""
        return PLAIN_USE


class RadianceModel(Model):
    """Stages, image metrics, and checkpoints whose parameters have grown.

    Metrics are taken on unclamped, unrounded floats. A model with stages has a buffer ``stage``, the number of the one
    that it is in, -1 before the first step.
    """

    config: RadianceModelConfig
    stage: Tensor

    def populate_modules(self) -> None:
        """Subclasses add their modules."""
        super().populate_modules()
        self.stages = StageMachine(self.config.stages(), self)
        self.schedule = self.stages.schedule
        if self.stages.stages:
            self.register_buffer("stage", torch.tensor(UNTRAINED))
        # Apart from the modules, whose weights go into checkpoints.
        self._lpips: list[Lpips] = []
        self._empty_batches = 0  # of rays, in a row
        self._lpips_checked = False
        if self.config.lpips_weights is not None:
            self._perceptual_metric()  # a wrong file is said before training

    # Training

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> list[TrainingCallback]:
        """The hooks of the stages."""
        return self.stages.callbacks(attributes)

    # Evaluation

    def get_metrics_dict(self, outputs: dict, batch: dict) -> dict[str, Tensor]:
        """PSNR of a batch of rays."""
        return {"psnr": psnr(outputs["rgb"].detach(), self.target(batch))}

    def target(self, batch: dict) -> Tensor:
        """The colours (..., 3) of a batch, on the model's device."""
        return batch["image"][..., :3].to(self.device)

    def get_image_metrics_and_images(self, outputs: dict, batch: dict) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Metrics of a whole image, and pictures (H, W, 3): truth beside rendering, opacity, depth.

        ``outputs`` holds ``rgb`` (H, W, 3), ``accumulation`` and ``depth`` (H, W, 1). Where the image has a mask,
        ``psnr_masked`` counts only the pixels that it leaves; it is not a number where it leaves none.
        """
        target, rgb = self.target(batch), outputs["rgb"]
        metrics = {"psnr": float(psnr(rgb, target))}
        if "mask" in batch:
            seen = batch["mask"][..., 0].bool().to(rgb.device)
            metrics["psnr_masked"] = float(psnr(rgb[seen], target[seen]))
        if min(target.shape[:2]) >= 11:
            metrics["ssim"] = float(ssim(rgb, target))
        perceptual = self._perceptual_metric()
        if perceptual is not None:
            images = [image.movedim(-1, 0)[None].clamp(0, 1) for image in (rgb, target)]  # (1, 3, H, W)
            metrics["lpips"] = float(perceptual.to(self.device)(*images))
        opacity = outputs["accumulation"]
        return metrics, {
            "img": torch.cat([target, rgb.clamp(0, 1)], 1),
            "accumulation": colormaps.apply_colormap(opacity.clamp(0, 1)),
            "depth": colormaps.apply_depth_colormap(outputs["depth"], accumulation=opacity.clamp(0, 1)),
        }

    def _perceptual_metric(self) -> Lpips | None:
        if not self._lpips_checked:
            self._lpips_checked = True
            if self.config.compute_lpips:
                self._lpips = _load_lpips(self.config.lpips_weights)
        return self._lpips[0] if self._lpips else None

    # Rendering after training

    def background_colour(self) -> Tensor:
        """The colour (3,) on which the model composites; white unless a model says otherwise."""
        return torch.ones(3, device=self.device)

    def shown_background(self) -> Tensor:
        """That colour, or the one that nerfstudio's viewer and camera paths put around a crop."""
        override = renderers.BACKGROUND_COLOR_OVERRIDE
        return self.background_colour() if override is None else override.to(self.device)

    def get_rgba_image(self, outputs: dict[str, Tensor], output_name: str = "rgb") -> Tensor:
        """Colours without the background, and opacity (..., 4).

        Raises:
            SceneError: many batches of rays (N) in a row show nothing: `ns-export` would look for points for ever.
        """
        opacity = outputs[output_name.replace("rgb", "accumulation")].clamp(0, 1)
        if opacity.dim() == 2:
            self._empty_batches = 0 if bool((opacity > OPAQUE).any()) else self._empty_batches + 1
            if self._empty_batches > MOST_EMPTY_BATCHES:
                raise SceneError(
                    f"no ray of {self._empty_batches} batches is more than half opaque: the field holds no surface to "
                    "export; train it for longer"
                )
        own = outputs[output_name] - (1 - opacity) * self.shown_background().to(opacity.device)
        return torch.cat([(own / opacity.clamp(min=1e-6)).clamp(0, 1), opacity], -1)

    # Checkpoints

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False):
        """Load a checkpoint, after giving parameters and buffers the shapes they have in it.

        Raises:
            SceneError: names are missing or left over. (nerfstudio would load the rest and say nothing.)
        """
        # Earlier versions wrote the metric's weights into checkpoints.
        state_dict = {name: value for name, value in state_dict.items() if not name.startswith("_lpips.")}
        self.resize_to(state_dict)
        own = self.state_dict()
        missing, extra = sorted(own.keys() - state_dict.keys()), sorted(state_dict.keys() - own.keys())
        if missing or extra:
            raise SceneError(
                f"the checkpoint does not fit this model: {len(missing)} names are missing ({', '.join(missing[:3])}), "
                f"{len(extra)} are left over ({', '.join(extra[:3])}); was it trained by another method or version?"
            )
        return super().load_state_dict(state_dict, strict=True, assign=assign)

    def resize_to(self, state_dict: Mapping[str, Tensor]) -> None:
        """Give parameters and buffers the shapes of a checkpoint.

        Parameter objects stay, since a resumed run's optimisers already hold them. The checkpoint's stage rebuilds what
        is more than tensors.
        """
        self.stages.rebuild(state_dict)
        tensors = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        for name, tensor in tensors.items():
            incoming = state_dict.get(name)
            if incoming is not None and incoming.shape != tensor.shape:
                tensor.data = torch.empty_like(incoming, device=tensor.device, dtype=tensor.dtype)


def _load_lpips(weights: Path | None) -> list[Lpips]:
    """The metric, if its weights are on this machine and can be read."""
    path = weights or Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET_FILE
    if not path.is_file():
        if weights is not None:
            raise SceneError(f"--pipeline.model.lpips-weights: there is no file {weights}")
        CONSOLE.log(f"LPIPS is left out: its AlexNet weights are not at {path}")
        return []
    from perception.studio.perceptual import Lpips  # imports torchvision's models

    try:
        return [Lpips(path)]
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, EOFError, pickle.UnpicklingError):
        if weights is not None:
            raise SceneError(
                f"--pipeline.model.lpips-weights: {weights} does not hold torchvision's AlexNet weights"
            ) from None
        CONSOLE.log(f"LPIPS is left out: {path} does not hold torchvision's AlexNet weights")
        return []
