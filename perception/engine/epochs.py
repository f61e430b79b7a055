"""Exact resumption of runs that count epochs."""

from __future__ import annotations

from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .hooks import ExactResumeHook


@HOOKS.register_module()
class ExactEpochResumeHook(ExactResumeHook):
    """Makes a resumed epoch-based run equal to an uninterrupted one, also from a checkpoint within an epoch.

    Needs :class:`~perception.datasets.resumable_epochs.ResumableEpochBatchSampler`.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Moves the batch sampler to what is left of the epoch."""
        done = runner.iter - runner.epoch * len(runner.train_dataloader)
        runner.train_dataloader.batch_sampler.skip(done)
