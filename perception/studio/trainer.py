"""nerfstudio's trainer, with checkpoints that are whole or absent, and a resumed run that ends where it should."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.utils import profiler
from nerfstudio.utils.rich_utils import CONSOLE

from perception.engine.atomic import output_folder
from perception.engine.memory import keep_freed_memory
from perception.studio.checkpoints import check_folder_for_evaluation, chosen_checkpoint, load_training_checkpoint
from perception.studio.errors import SceneError, one_sentence
from perception.studio.options import check_options
from perception.studio.resume import check_resumable, check_stage, run_record
from perception.studio.training_run import Iteration


@dataclass
class StudioTrainerConfig(TrainerConfig):
    """Settings of a run."""

    _target: type = field(default_factory=lambda: StudioTrainer)
    max_num_iterations: int = 1_000_000
    """Step at which training stops; a method that trains in stages stops at the end of the last one at the latest."""

    def save_config(self) -> None:
        """Write config.yml into the run's folder, with the device that the run will use."""
        folder = self.get_base_dir()
        with one_sentence(), _no_empty_run(folder, self.output_dir):
            self.settle_device()
            check_options(self)
            output_folder(folder)
            try:
                super().save_config()
            except OSError as error:
                raise SceneError(f"cannot write {folder / 'config.yml'}: {error.strerror}") from error

    def settle_device(self) -> None:
        """Take the CPU where the device asked for is not there.

        Raises:
            SceneError: several devices are asked for, which takes CUDA.
        """
        machine = self.machine
        present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
        if present[machine.device_type]:
            return
        if machine.num_devices > 1:
            raise SceneError(f"--machine.num-devices {machine.num_devices}: there is no CUDA device here")
        machine.device_type = "cpu"

    def get_checkpoint_dir(self) -> Path:
        """The folder of the run's checkpoints, which nerfstudio's commands ask for before they read it.

        Raises:
            SceneError: it holds what they would stumble over.
        """
        folder = super().get_checkpoint_dir()
        with one_sentence():
            check_folder_for_evaluation(folder)
        return folder


class StudioTrainer(Trainer):
    """Trainer of this suite's methods.

    `max_num_iterations` is the step at which the run ends, also when it was resumed (nerfstudio counts from the resumed
    step). A checkpoint appears under its name only when it is complete, and knows the run that wrote it.
    """

    config: StudioTrainerConfig

    def __init__(self, config: StudioTrainerConfig, local_rank: int = 0, world_size: int = 1):
        config.settle_device()
        super().__init__(config, local_rank, world_size)
        if self.device == "cpu":
            keep_freed_memory()

    def setup(self, test_mode: str = "val") -> None:
        """Build the pipeline and load the checkpoint that the run continues from."""
        with one_sentence(), _no_empty_run(self.base_dir, self.config.output_dir):
            check_options(self.config)
            self._settle_end()
            self.config.pipeline.datamanager.scene_use = self.config.pipeline.model.scene_use()
            self._resumed_from = chosen_checkpoint(self.config)
            super().setup(test_mode)

    def _settle_end(self) -> None:
        """Stop at the end of the last stage at the latest."""
        if self.config.max_num_iterations < 1:
            raise SceneError(f"--max-num-iterations must be at least 1, not {self.config.max_num_iterations}")
        try:
            schedule = self.config.pipeline.model.schedule()
        except ValueError as error:  # a stage without steps
            raise SceneError(f"{error} (--pipeline.model)") from None
        if schedule.stages:
            self.config.max_num_iterations = min(self.config.max_num_iterations, schedule.total_steps)

    def _load_checkpoint(self) -> None:
        """Go on from a checkpoint, if one is named, its run is this one, and something is left to train."""
        self._record = run_record(self.config, self.pipeline)
        if self._resumed_from is None:
            CONSOLE.print("No checkpoint to load, so training from scratch.")
            return
        path, model = self._resumed_from, self.config.pipeline.model
        state = load_training_checkpoint(path, set(self.optimizers.optimizers))
        step, end = state["step"], self.config.max_num_iterations
        saved = state.get("run")
        if isinstance(saved, dict) and saved.keys() >= self._record.keys():
            remark = check_resumable(saved, self._record, model, step, path)
        else:
            remark = f"{path} does not know its settings (an earlier version wrote it): only its stage is compared."
            stage = state["pipeline"].get("_model.stage")
            if stage is not None and model.schedule().stages:
                check_stage(int(stage), model.schedule(), step, path)
        if remark:
            CONSOLE.log(remark)
        self._start_step = step + 1
        self.pipeline.load_pipeline(state["pipeline"], step)
        if step + 1 >= end:
            raise SceneError(
                f"the checkpoint is at step {step} and training ends after step {end - 1}: "
                "there is nothing left to train"
            )
        self.optimizers.load_optimizers(state["optimizers"])
        if "schedulers" in state and self.config.load_scheduler:
            self.optimizers.load_schedulers(state["schedulers"])
        self.grad_scaler.load_state_dict(state["scalers"])
        CONSOLE.print(f"Going on after step {step}, from {path}")

    def train(self) -> None:
        """Train from the start step to the end."""
        end = self.config.max_num_iterations
        self.config.max_num_iterations = end - self._start_step  # nerfstudio's loop adds the start step
        try:
            with one_sentence():
                super().train()
        finally:
            self.config.max_num_iterations = end

    @profiler.time_function
    def train_iteration(self, step: int) -> Iteration:
        """One step, by the stage of the model that it belongs to."""
        return self.pipeline.model.stages.train_iteration()

    def save_checkpoint(self, step: int) -> None:
        """Write the state under a temporary name, rename it, then delete older ones if only the latest is kept.

        Raises:
            SceneError: it cannot be written; older ones stay.
        """
        if self.local_rank != 0:
            return
        final_dir, name = self.checkpoint_dir, f"step-{step:09d}.ckpt"
        # Not beside the others: nerfstudio takes the step from the name of every file in their folder.
        unfinished = final_dir.parent / ".unfinished-checkpoint"
        pipeline = getattr(self.pipeline, "module", self.pipeline)
        state = {
            "step": step,
            "pipeline": pipeline.state_dict(),
            "optimizers": {group: optimizer.state_dict() for group, optimizer in self.optimizers.optimizers.items()},
            "schedulers": {group: scheduler.state_dict() for group, scheduler in self.optimizers.schedulers.items()},
            "scalers": self.grad_scaler.state_dict(),
            "run": self._record,
        }
        try:
            final_dir.mkdir(parents=True, exist_ok=True)
            unfinished.mkdir(exist_ok=True)
            torch.save(state, unfinished / name)
            os.replace(unfinished / name, final_dir / name)
        except (OSError, RuntimeError) as error:  # torch's writer raises the latter where the disk is full
            raise SceneError(
                f"the checkpoint of step {step} cannot be written into {final_dir}: {_write_fault(error, final_dir)}; "
                "the run goes on from the one before with --load-dir"
            ) from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)  # with what a killed run may have left there
        if self.config.save_only_latest_checkpoint:
            for older in final_dir.glob("*.ckpt"):
                if older.name != name:
                    older.unlink()


def _write_fault(error: Exception, folder: Path) -> str:
    """Why a file could not be written, in words; torch's writer only says that it could not."""
    strerror = getattr(error, "strerror", None)
    if strerror:
        return strerror
    free = shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.is_dir())).free
    return f"writing failed ({free / 2**20:.0f} MB are free there)"


@contextmanager
def _no_empty_run(folder: Path, output_dir: Path) -> Iterator[None]:
    """Removes the folder of a run that never began: it holds config.yml alone, and later commands would find it."""
    try:
        yield
    except BaseException:
        if folder.is_dir() and {path.name for path in folder.iterdir()} == {"config.yml"}:
            (folder / "config.yml").unlink()
            while folder != output_dir and not any(folder.iterdir()):
                folder.rmdir()
                folder = folder.parent
        raise
