"""Going on from a checkpoint that a run has left, and from no other."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .checkpoint import state_dict_of
from .errors import UserError


@HOOKS.register_module()
class ResumedRunHook(Hook):
    """Looks at a checkpoint before a run goes on from it: MMEngine takes the weights that fit and leaves the others."""

    priority = "VERY_HIGH"

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """
        Raises:
            UserError: the checkpoint holds weights alone, or is of another model.
        """
        meta = checkpoint.get("meta") or {}
        if "epoch" not in meta or "iter" not in meta or "optimizer" not in checkpoint:
            raise UserError(
                "--resume: the checkpoint holds weights alone, not the state of a run; "
                "start from them with --cfg-options load_from=FILE instead"
            )
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        given = {key: tuple(value.shape) for key, value in state_dict_of(checkpoint).items()}
        # Counters of batch-norm steps are absent from older files.
        others = [key for key in {**own, **given} if own.get(key) != given.get(key)]
        others = [key for key in others if not key.endswith("num_batches_tracked")]
        if others:
            raise UserError(
                f"--resume: the checkpoint is of another model: {len(others)} weights are missing, of another shape or "
                f"unknown here (first: {others[0]}); use the config of the run that left it"
            )
