"""What a stage may do to the run that it is part of: optimisers, rates, and the parts of a training step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import torch
from nerfstudio.engine.callbacks import TrainingCallbackAttributes
from torch import Tensor

from perception.studio.datamanager import RayDataManager
from perception.studio.errors import SceneError
from perception.studio.optimizers import follow_decay, replace_parameters, scale_learning_rate

if TYPE_CHECKING:
    from nerfstudio.pipelines.base_pipeline import VanillaPipeline

    from perception.studio.model import RadianceModel
    from perception.studio.trainer import StudioTrainer

Iteration = tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]
"""Loss, its parts, and metrics: what nerfstudio logs of a training step."""

ModelT = TypeVar("ModelT", bound="RadianceModel")


class TrainingRun(Generic[ModelT]):
    """A run, as its stages see it.

    Groups are the model's parameter groups (``get_param_groups``), which have one optimiser each. Methods take any
    number of them, and none stands for all.

    Args:
        attributes: what nerfstudio hands to the makers of callbacks.

    Raises:
        SceneError: the data manager is of another kind.
    """

    def __init__(self, attributes: TrainingCallbackAttributes):
        self.trainer = cast("StudioTrainer", attributes.trainer)
        self.pipeline = cast("VanillaPipeline", attributes.pipeline)
        self.optimizers = attributes.optimizers
        self.step = 0  # the present one; the stage machine sets it
        if not isinstance(self.pipeline.datamanager, RayDataManager):
            raise SceneError(f"the method needs a RayDataManager, not {type(self.pipeline.datamanager).__name__}")

    @property
    def model(self) -> ModelT:
        """What is trained."""
        return cast(ModelT, self.pipeline.model)

    @property
    def manager(self) -> RayDataManager:
        """Where rays and colours come from."""
        return cast(RayDataManager, self.pipeline.datamanager)

    # Optimisers and their rates

    def restart(self, *groups: str, **options: Any) -> None:
        """Train the parameters that the model has now in these groups: fresh moments, the configured rate, its schedule
        from the start.

        Args:
            groups: of parameters.
            options: of the optimisers' parameter groups, as ``skip_zero_grad=True``.
        """
        parameters = self.model.get_param_groups()
        for group in groups or parameters:
            replace_parameters(self.optimizers, group, parameters[group])
            for param_group in self.optimizers.optimizers[group].param_groups:
                param_group.update(options)

    def scale_rates(self, factor: float, *groups: str) -> None:
        """Multiply the present and all later rates; moments and schedules go on."""
        for group in groups or self.optimizers.optimizers:
            scale_learning_rate(self.optimizers, group, factor)

    def follow_decay(self, decay_steps: int, *groups: str) -> None:
        """Let the rates fall from where they are, to a tenth every ``decay_steps`` steps; moments go on.

        The groups' configured schedule must be a :class:`~perception.studio.optimizers.PerStepDecayConfig`, in whose
        terms a checkpoint keeps the new one.
        """
        for group in groups or self.optimizers.optimizers:
            follow_decay(self.optimizers, group, decay_steps)

    # The parts of a training step, in their order

    def zero_grad(self, *groups: str) -> None:
        """Forget gradients, but of groups that gather them over several steps."""
        self.optimizers.zero_grad_some(
            [group for group in self._named(groups) if self.step % self._gathers(group) == 0]
        )

    def autocast(self) -> torch.autocast:
        """Half precision where the run asks for it."""
        kind = torch.device(self.trainer.device).type
        return torch.autocast("cpu" if kind == "mps" else kind, enabled=self.trainer.mixed_precision)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to what the parameters have; may be called several times in a step."""
        self.trainer.grad_scaler.scale(loss).backward()

    def optimizer_step(self, *groups: str) -> None:
        """Update parameters. Groups without any gradient are left alone."""
        due = [group for group in self._named(groups) if (self.step + 1) % self._gathers(group) == 0]
        self.optimizers.optimizer_scaler_step_some(self.trainer.grad_scaler, due)

    def end_iteration(self, loss: Tensor, losses: dict[str, Tensor], metrics: dict[str, Any]) -> Iteration:
        """Move all rates on, once for each training step.

        Args:
            loss: what was minimised, for the log.
            losses: its parts.
            metrics: what else is logged.
        """
        if self.trainer.config.log_gradients:
            metrics = {**metrics, **self._gradients()}
        scaler = self.trainer.grad_scaler
        before = scaler.get_scale()
        scaler.update()
        if before <= scaler.get_scale():  # a lower one means that no optimiser took its step
            self.optimizers.scheduler_step_all(self.step)
        return loss, losses, metrics

    def _named(self, groups: tuple[str, ...]) -> tuple[str, ...]:
        return groups or tuple(self.optimizers.parameters)

    def _gathers(self, group: str) -> int:
        return self.trainer.gradient_accumulation_steps[group]

    def _gradients(self) -> dict[str, Tensor]:
        named = self.model.named_parameters()
        norms = {f"Gradients/{name}": value.grad.norm() for name, value in named if value.grad is not None}
        return {**norms, "Gradients/Total": torch.stack([*norms.values()]).sum()} if norms else {}
