"""nerfstudio's trainer, with checkpoints that are whole or absent, and a resumed run that ends where it should."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch
from nerfstudio.engine.trainer import Trainer, TrainerConfig

from perception.engine.memory import keep_freed_memory
from perception.studio.errors import SceneError, one_sentence


@dataclass
class StudioTrainerConfig(TrainerConfig):
    """Settings of a run."""

    _target: type = field(default_factory=lambda: StudioTrainer)
    max_num_iterations: int = 1_000_000
    """Step at which training stops; a method that trains in stages stops at the end of the last one at the latest."""


class StudioTrainer(Trainer):
    """Trainer of this suite's methods.

    `max_num_iterations` is the step at which the run ends, also when it was resumed (nerfstudio counts from the resumed
    step). A checkpoint appears under its name only when it is complete.
    """

    config: StudioTrainerConfig

    def __init__(self, config: StudioTrainerConfig, local_rank: int = 0, world_size: int = 1):
        if config.machine.device_type == "cuda" and not torch.cuda.is_available():
            raise SceneError(
                "there is no CUDA device here: add --machine.device-type cpu before the data parser's name"
            )
        super().__init__(config, local_rank, world_size)
        if self.device == "cpu":
            keep_freed_memory()

    def setup(self, test_mode: str = "val") -> None:
        """Build the pipeline and load the checkpoint that the run continues from."""
        with one_sentence():
            schedule = getattr(self.config.pipeline.model, "schedule", None)
            if schedule is not None:
                self.config.max_num_iterations = min(self.config.max_num_iterations, schedule().total_steps)
            self.config.pipeline.datamanager.scene_use = self.config.pipeline.model.scene_use()
            if self.config.load_dir is not None:
                check_load_dir(self.config.load_dir)
            super().setup(test_mode)
        end = self.config.max_num_iterations
        if self._start_step >= end:
            raise SceneError(
                f"the checkpoint is at step {self._start_step - 1} and training ends after step {end - 1}: "
                "there is nothing left to train"
            )

    def train(self) -> None:
        """Train from the start step to the end."""
        end = self.config.max_num_iterations
        self.config.max_num_iterations = end - self._start_step  # nerfstudio's loop adds the start step
        try:
            with one_sentence():
                super().train()
        finally:
            self.config.max_num_iterations = end

    def save_checkpoint(self, step: int) -> None:
        """Write the state under a temporary name, rename it, then delete older ones if only the latest is kept."""
        final_dir, only_latest = self.checkpoint_dir, self.config.save_only_latest_checkpoint
        final_dir.mkdir(parents=True, exist_ok=True)
        name = f"step-{step:09d}.ckpt"
        try:
            self.checkpoint_dir = final_dir.parent / ".unfinished-checkpoint"
            self.config.save_only_latest_checkpoint = False
            super().save_checkpoint(step)
            os.replace(self.checkpoint_dir / name, final_dir / name)
            shutil.rmtree(self.checkpoint_dir)  # with what a killed run may have left there
        finally:
            self.checkpoint_dir, self.config.save_only_latest_checkpoint = final_dir, only_latest
        if only_latest:
            for older in final_dir.glob("*.ckpt"):
                if older.name != name:
                    older.unlink()


def check_load_dir(folder: Path) -> None:
    """Raise unless `folder` holds checkpoints.

    Raises:
        SceneError: it is missing or empty.
    """
    if not folder.is_dir() or not list(folder.glob("step-*.ckpt")):
        raise SceneError(
            f"--load-dir {folder} holds no checkpoint (step-*.ckpt); it is a run's nerfstudio_models folder"
        )
