"""Hooks that any recipe can use."""

from __future__ import annotations

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .memory import keep_freed_memory


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Makes a resumed iteration-based run equal to an uninterrupted one.

    Needs :class:`~perception.datasets.resumable.ResumableBatchSampler`, which it moves to the right batch without
    loading the images before it, and seeds torch before every iteration, so that dropout and stochastic depth repeat.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Runs once, before the loop would advance the data loader batch by batch."""
        runner.train_dataloader.batch_sampler.skip(runner.iter)
        runner.train_loop.fast_forward_on_resume = True

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Seeds the model's random operations from seed, rank and iteration."""
        torch.manual_seed(hash((runner.seed, get_rank(), runner.iter)) % 2**63)


@HOOKS.register_module()
class KeepFreedMemoryHook(Hook):
    """Makes a run on a CPU reuse what its tensors free, see :func:`.memory.keep_freed_memory`."""

    def before_run(self, runner: Runner) -> None:
        """Once, before the first batch."""
        if next(runner.model.parameters()).device.type == "cpu":
            keep_freed_memory()
