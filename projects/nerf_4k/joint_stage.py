"""The last stage: field, decoder and discriminator together, one patch of one image at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from perception.engine.atomic import replacing
from perception.radiance.losses import background_entropy, sample_colour_error
from perception.radiance.metrics import psnr
from perception.studio.evaluation import measure_split
from perception.studio.stages import Stage
from perception.studio.training_run import Iteration, TrainingRun
from projects.nerf_4k.losses import LAYERS, discriminator_loss, generator_loss, perceptual_losses
from projects.nerf_4k.settings import JointSettings

if TYPE_CHECKING:
    from projects.nerf_4k.model import EnlargingModel

MASK_EVERY = 1000  # steps between two looks for free space


class JointStage(Stage["EnlargingModel", JointSettings]):
    """Trains field and decoder for the large picture and the small one, then the discriminator."""

    def start(self, run: TrainingRun[EnlargingModel]) -> None:
        model = run.model
        field_groups = model.field_groups
        if model.starts is not None and model.starts.encoder is not None:
            model.take_field(run, model.starts.encoder)
            run.restart("density", "k0", skip_zero_grad=True)
            run.restart(*(group for group in field_groups if group not in ("density", "k0")))
            run.scale_rates(self.settings.rate_factor, *field_groups)
        if model.starts is not None:
            model.starts.fill(model)
        run.restart(*(group for group in model.get_param_groups() if group not in field_groups))
        run.follow_decay(self.settings.decay_steps, *field_groups)
        model.compares_features.fill_(model.vgg is not None)
        self.take_up(run)

    def take_up(self, run: TrainingRun[EnlargingModel]) -> None:
        run.model.start_patches(run, self.span.start, run.manager.config.sampler)

    def before_step(self, run: TrainingRun[EnlargingModel], local: int) -> None:
        if local % MASK_EVERY == 0:
            run.model.field.update_occupancy_cache()

    def train_iteration(self, run: TrainingRun[EnlargingModel]) -> Iteration:
        model = run.model
        rays, batch = run.manager.next_train(run.step)
        place = batch["tile"]
        size = place.tile.height, place.tile.width
        rendering = model.render(rays)
        small = _image(model.small_picture(rendering), size)
        large = model.enlarge(small, _image(model.small_depth(rendering)[:, None], size))
        wanted_small = _image(model.target(batch), size)
        wanted_large = batch["high"].movedim(-1, 0)[None].to(model.device)
        losses = self._field_losses(model, rendering, small, wanted_small)
        losses |= self._picture_losses(model, large, wanted_large)
        loss = torch.stack([*losses.values()]).sum()
        run.zero_grad()
        run.backward(loss)
        run.optimizer_step(*model.field_groups, "decoder")
        if model.discriminator is not None:
            losses["discriminator_loss"] = self._train_discriminator(run, large.detach(), wanted_large)
        return run.end_iteration(
            loss, losses, {"psnr": psnr(large.detach(), wanted_large), "psnr_small": psnr(small.detach(), wanted_small)}
        )

    def _field_losses(self, model: EnlargingModel, rendering, small: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        settings = self.settings
        terms = {
            "small_loss": (settings.weight_small, lambda: F.l1_loss(small, wanted)),
            "entropy_loss": (settings.weight_entropy_last, lambda: background_entropy(rendering.alphainv_last)),
            "rgbper_loss": (
                settings.weight_rgbper,
                lambda: sample_colour_error(rendering, wanted[0].flatten(1).T),
            ),
            "distortion_loss": (settings.weight_distortion, lambda: model.distortion(rendering)),
        }
        return {name: weight * term() for name, (weight, term) in terms.items() if weight}

    def _picture_losses(self, model: EnlargingModel, large: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        settings = self.settings
        losses = {"large_loss": settings.weight_large * F.l1_loss(large, wanted)} if settings.weight_large else {}
        if model.vgg is not None:
            found = perceptual_losses(model.vgg, large, wanted, dict(zip(LAYERS, settings.layer_weights)))
            losses["perceptual_loss"] = settings.weight_perceptual * found.perceptual
            losses["style_loss"] = settings.weight_style * found.style
        if model.discriminator is not None:
            model.discriminator.requires_grad_(False)
            losses["gan_loss"] = settings.weight_gan * generator_loss(model.judge(large))
            model.discriminator.requires_grad_(True)
        return losses

    def _train_discriminator(self, run: TrainingRun[EnlargingModel], made: Tensor, real: Tensor) -> Tensor:
        total = made.new_zeros(())
        for picture, is_real in ((real, True), (made, False)):
            loss = discriminator_loss(run.model.judge(picture), real=is_real)
            run.backward(loss)
            total = total + loss.detach()
        run.optimizer_step("discriminator")
        return total

    def finish(self, run: TrainingRun[EnlargingModel]) -> None:
        split = run.model.config.report_split
        if split == "none":
            return
        metrics = measure_split(run.pipeline, split)
        shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        CONSOLE.log(f"{split} views: {shown}")
        with replacing(run.trainer.base_dir / "quality.json") as file:
            file.write((json.dumps({"split": split, **metrics}, indent=2) + "\n").encode())

    def rebuild(self, model: EnlargingModel, state_dict: Mapping[str, Tensor]) -> None:
        model.rebuild_field(state_dict)


def _image(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Values (h * w, C), row by row, as an image (1, C, h, w)."""
    return values.view(1, *size, -1).movedim(-1, 1)
