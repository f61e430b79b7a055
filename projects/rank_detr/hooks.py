"""Training hook of Rank-DETR."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class MatcherIterationHook(Hook):
    """Tells the matcher the training iteration, on which its cost depends.

    The runner restores its iteration on resume, so the cost switches at the same iteration in a resumed run.
    """

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Writes the 0-based iteration about to run."""
        self._set(runner, runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Outside training the matcher uses its first cost."""
        self._set(runner, -1)

    @staticmethod
    def _set(runner: Runner, iteration: int) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        model.criterion.matcher.iteration = iteration
