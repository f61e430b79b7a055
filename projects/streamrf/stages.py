"""What happens in a run, frame after frame: the first field, its pilot, and then a pilot and a full step for each frame
(section 3 and 4)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from perception.radiance.metrics import psnr
from perception.radiance.sparse_grid import SparseGrid, run_of_cells
from perception.studio.samplers import generator
from perception.studio.stages import Stage
from perception.studio.training_run import Iteration, TrainingRun
from projects.streamrf.delta import FieldState, decode_frame, encode_frame
from projects.streamrf.field import state_of, take_state
from projects.streamrf.guidance import PilotChange, guide, narrow_band, take_over_from_pilot
from projects.streamrf.rendering import to_field
from projects.streamrf.settings import BaseSettings, FrameSettings, log_linear_rate

if TYPE_CHECKING:
    from projects.streamrf.model import StreamRFModel

GRID, PILOT = ("density", "sh"), ("pilot_density", "pilot_sh")
CELLS = 1 << 23  # where the random numbers of total variation begin, beyond those of pixels


class FieldStage(Stage["StreamRFModel", BaseSettings | FrameSettings]):
    """Trains one of the two fields on the frame that is shown.

    Args:
        name, settings: see :class:`~perception.studio.stages.Stage`.
        frame: its number.
    """

    groups = GRID

    def __init__(self, name: str, settings: BaseSettings | FrameSettings, frame: int = 0):
        super().__init__(name, settings)
        self.frame = frame

    def grid(self, model: StreamRFModel) -> SparseGrid:
        """The field that is trained."""
        return model.pilot if self.groups is PILOT else model.grid

    def take_up(self, run: TrainingRun[StreamRFModel]) -> None:
        run.manager.show_frame(self.frame)
        run.manager.set_num_rays(self.settings.rays)

    def rates(self, step: int) -> tuple[float, float]:
        """Learning rates of densities and coefficients at a step, counted from 0 within the stage."""
        settings = self.settings
        coefficients = log_linear_rate(step, settings.lr_sh, settings.lr_sh_final, settings.lr_steps)
        return settings.lr_sigma, coefficients

    def before_step(self, run: TrainingRun[StreamRFModel], local: int) -> None:
        for group, rate in zip(self.groups, self.rates(local - 1)):
            for param_group in run.optimizers.optimizers[group].param_groups:
                param_group["lr"] = rate

    def train_iteration(self, run: TrainingRun[StreamRFModel]) -> Iteration:
        """One step with the closed-form gradient; total variation is added to it, then touched voxels are updated."""
        model, settings, grid = run.model, self.settings, self.grid(run.model)
        rays, batch = run.manager.next_train(run.step)
        target = model.target(batch)
        origins, directions = to_field(model.rendering.ndc, rays.origins.float(), rays.directions.float())
        march = model.march(settings.stop_thresh)
        rgb, touched = grid.squared_error_step(origins, directions, target, march, model.config.sparsity)
        masks = (touched, touched.clone())
        cells = run_of_cells(grid.links.numel(), model.config.tv_share, generator(run.manager.seed, CELLS + run.step))
        grid.add_total_variation(
            cells.to(grid.links.device), settings.weight_tv, settings.weight_tv_sh, masks, model.config.legacy_tv
        )
        for parameter, mask in zip((grid.density, grid.sh), masks):
            parameter.touched = mask if model.may_change is None else mask & model.may_change
        run.optimizer_step(*self.groups)
        loss = (rgb - target).square().mean()
        return run.end_iteration(loss, {"rgb_loss": loss}, {"psnr": psnr(rgb, target)})

    def begin(self, run: TrainingRun[StreamRFModel]) -> None:
        """Train from here on: fresh optimisers, the frame's pixels."""
        run.restart(*self.groups)
        self.take_up(run)


class BaseStage(FieldStage):
    """The field of the first frame, from nothing."""

    settings: BaseSettings

    def start(self, run: TrainingRun[StreamRFModel]) -> None:
        run.model.see_scene(run)
        run.model.make_grid(self.settings.resolutions[0])
        self.begin(run)

    def rates(self, step: int) -> tuple[float, float]:
        s = self.settings
        density = log_linear_rate(step, s.lr_sigma, s.lr_sigma_final, s.lr_steps, s.lr_sigma_delay)
        return density, log_linear_rate(step, s.lr_sh, s.lr_sh_final, s.lr_steps)

    def before_step(self, run: TrainingRun[StreamRFModel], local: int) -> None:
        if local - 1 in self.settings.upsample_at:
            size = self.settings.resolutions[self.settings.upsample_at.index(local - 1) + 1]
            run.model.grid.resample(size, run.model.config.density_thresh, self.settings.dilate)
            run.restart(*self.groups)
            CONSOLE.log(
                f"{' x '.join(map(str, size))} voxels from step {run.step} on, {len(run.model.grid.sh)} of them"
            )
        super().before_step(run, local)

    def end(self, run: TrainingRun[StreamRFModel]) -> None:
        model = run.model
        model.grid.sparsify(model.config.density_thresh, self.settings.dilate)
        take_state(model.grid, model.stored(model.grid))
        model.begin_stream(run)
        run.trainer.save_checkpoint(run.step)

    def take_up(self, run: TrainingRun[StreamRFModel]) -> None:
        run.model.see_scene(run)
        super().take_up(run)


class FrameStage(FieldStage):
    """One field, taken from a frame to the next and coded."""

    settings: FrameSettings

    def start(self, run: TrainingRun[StreamRFModel]) -> None:
        model = run.model
        self.started = time.perf_counter()
        model.before = state_of(self.grid(model))
        self.grid(model).dilate(self.settings.dilate_before)
        model.may_change = self.changeable(model)
        self.begin(run)

    def changeable(self, model: StreamRFModel) -> Tensor | None:
        """Rows that may change, bool (V,); ``None`` for all."""
        return None

    def coded(self, model: StreamRFModel):
        """Sparsify and encode the trained field, and make it what the code says; the delta and the state before it."""
        grid, before = self.grid(model), model.before
        model.may_change, model.before = None, None
        grid.sparsify(model.config.density_thresh, self.settings.dilate_after)
        delta = encode_frame(
            self.frame,
            before,
            state_of(grid),
            keep_threshold=self.settings.keep_threshold,
            prune_threshold=self.settings.prune_threshold,
            half=model.config.half,
            sh_step=model.config.sh_step,
        )
        after: FieldState = decode_frame(before, delta)
        take_state(grid, after)
        return delta, before, after


class FirstPilotStage(FrameStage):
    """A field of a fraction of the resolution, made of the first one, trained on its frame and coded as later ones."""

    groups = PILOT

    def start(self, run: TrainingRun[StreamRFModel]) -> None:
        model, config = run.model, run.model.config
        take_state(model.pilot, state_of(model.grid))
        size = [max(4, int(size / config.pilot_factor)) for size in model.grid.size]
        model.pilot.resample(size, config.density_thresh, self.settings.dilate_after)
        super().start(run)

    def end(self, run: TrainingRun[StreamRFModel]) -> None:
        self.coded(run.model)
        run.trainer.save_checkpoint(run.step)


class PilotStage(FrameStage):
    """The pilot, on all of its voxels: what changes in it leads the field."""

    groups = PILOT

    def end(self, run: TrainingRun[StreamRFModel]) -> None:
        delta, before, _ = self.coded(run.model)
        run.model.change = PilotChange.of(before, delta)
        run.model.pilot_seconds = time.perf_counter() - self.started


class FullStage(FrameStage):
    """The field, near its surface and where the pilot leads."""

    def changeable(self, model: StreamRFModel) -> Tensor | None:
        """After the field has taken over what the pilot found."""
        config, grid = model.config, model.grid
        device = grid.links.device
        mask = None
        if config.band:
            mask = narrow_band(model.before.active.to(device), self.settings.dilate_before)
        if config.use_pilot:
            change = PilotChange(
                *(part.to(device) for part in (model.change.changed, model.change.added, model.change.removed))
            ).upsampled(grid.size)
            model.change = None
            take_over_from_pilot(grid, model.pilot, change)
            led = guide(change.changed)
            mask = led if mask is None else led & mask
        return None if mask is None else mask[grid.active]

    def end(self, run: TrainingRun[StreamRFModel]) -> None:
        model = run.model
        trained = time.perf_counter()
        delta, _, after = self.coded(model)
        size = model.writer(run).add(delta, after)
        model.frame.fill_(self.frame)
        coded = time.perf_counter()
        score = model.decoded_psnr(run)
        if self.frame % model.config.checkpoint_every == 0 or self.span.index == len(model.stages.stages) - 1:
            run.trainer.save_checkpoint(run.step)
        pilot, model.pilot_seconds = model.pilot_seconds, 0.0
        seconds = {
            "pilot": pilot,
            "training": trained - self.started,
            "coding": coded - trained,
            "saving": time.perf_counter() - coded,
        }
        model.report(run, self.frame, delta, size, score, seconds)

    def finish(self, run: TrainingRun[StreamRFModel]) -> None:
        CONSOLE.log(f"{self.frame + 1} frames are in {run.model.stream_folder(run)}")


def make_stages(
    frames: int, base: BaseSettings, pilot: FrameSettings | None, full: FrameSettings, first_pilot: FrameSettings | None
) -> list[Stage]:
    """All stages of a video.

    Args:
        frames: their number, the first one included.
        base: of the first field.
        pilot: of the pilot on each later frame; ``None`` to go without one.
        full: of the field on each later frame.
        first_pilot: of the pilot on the first frame.
    """
    stages: list[Stage] = [BaseStage("base", base)]
    if pilot is not None:
        stages.append(FirstPilotStage("pilot.0", first_pilot))
    for frame in range(1, frames):
        if pilot is not None:
            stages.append(PilotStage(f"pilot.{frame}", pilot, frame))
        stages.append(FullStage(f"full.{frame}", full, frame))
    return stages
