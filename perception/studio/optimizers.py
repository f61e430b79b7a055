"""Optimiser and learning-rate settings of fields in nerfstudio's form, and what a change of stage does to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nerfstudio.engine.optimizers import OptimizerConfig, Optimizers
from nerfstudio.engine.schedulers import Scheduler, SchedulerConfig
from torch.nn import Parameter
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from perception.radiance.optim import MaskedAdam, MaskedRMSprop


@dataclass
class MaskedAdamConfig(OptimizerConfig):
    """Adam as DirectVoxGO applies it, see perception.radiance.optim.MaskedAdam."""

    _target: type = MaskedAdam
    lr: float = 0.1
    """Learning rate."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Decay of the running mean and square of the gradient."""
    eps: float = 1e-8
    """Added to the uncorrected root of the running square."""
    skip_zero_grad: bool = False
    """Leave entries without a gradient alone."""


@dataclass
class MaskedRMSpropConfig(OptimizerConfig):
    """RMSprop of touched voxels as Plenoxels has it, see perception.radiance.optim.MaskedRMSprop."""

    _target: type = MaskedRMSprop
    lr: float = 1e-2
    """Learning rate; a method whose stages set the rate of each step does not read it."""
    beta: float = 0.95
    """Share of the old value in the running mean of squared gradients."""
    eps: float = 1e-8
    """Added to the root of that mean."""


@dataclass
class PerStepDecayConfig(SchedulerConfig):
    """The learning rate falls to a tenth every `decay_steps` steps, without end."""

    _target: type = field(default_factory=lambda: PerStepDecay)
    decay_steps: int = 20000
    """Steps in which the learning rate falls to a tenth."""


class PerStepDecay(Scheduler):
    """See :class:`PerStepDecayConfig`."""

    config: PerStepDecayConfig

    def get_scheduler(self, optimizer: Optimizer, lr_init: float) -> LambdaLR:
        """The schedule of an optimiser whose groups hold their initial rate."""
        return LambdaLR(optimizer, TenthEvery(self.config.decay_steps))


@dataclass
class AdamWithBetasConfig(OptimizerConfig):
    """Adam as torch has it, with all of its numbers."""

    _target: type = Adam
    lr: float = 0.005
    """Learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the running mean and square of the gradient."""
    eps: float = 1e-12
    """Added to the root of the running square."""


@dataclass
class WarmupExponentialConfig(SchedulerConfig):
    """The learning rate rises straight from a share of itself, then falls exponentially to another at the last step."""

    _target: type = field(default_factory=lambda: WarmupExponential)
    warmup_steps: int = 500
    """Steps of the rise."""
    warmup_start: float = 0.01
    """Share of the rate at the first step."""
    max_steps: int = 80_000
    """The last step."""
    final: float = 0.1
    """Share of the rate at the last step."""


class WarmupExponential(Scheduler):
    """See :class:`WarmupExponentialConfig`."""

    config: WarmupExponentialConfig

    def get_scheduler(self, optimizer: Optimizer, lr_init: float) -> LambdaLR:
        """The schedule of an optimiser whose groups hold their initial rate."""
        c = self.config
        return LambdaLR(optimizer, RiseAndFall(c.warmup_steps, c.warmup_start, c.max_steps, c.final))


@dataclass
class RiseAndFall:
    """See :class:`WarmupExponentialConfig`; an object and not a function, so that a checkpoint can hold it.

    Example:
        >>> rate = RiseAndFall(10, 0.01, 110, 0.1)
        >>> [round(rate(step), 3) for step in (0, 10, 60, 110)]
        [0.01, 1.0, 0.316, 0.1]
    """

    warmup_steps: int
    start: float
    max_steps: int
    final: float

    def __call__(self, step: int) -> float:
        if step < self.warmup_steps:
            return self.start + (1 - self.start) * step / self.warmup_steps
        return self.final ** ((step - self.warmup_steps) / max(1, self.max_steps - self.warmup_steps))


class TenthEvery:
    """``0.1 ** (step / decay_steps)``; an object and not a function, so that a checkpoint can hold it."""

    def __init__(self, decay_steps: int):
        if decay_steps < 1:
            raise ValueError(f"decay_steps must be at least 1, not {decay_steps}")
        self.decay_steps = decay_steps

    def __call__(self, step: int) -> float:
        return 0.1 ** (step / self.decay_steps)


def replace_parameters(optimizers: Optimizers, group: str, parameters: Sequence[Parameter]) -> None:
    """Let the optimiser of a group update other parameters, with fresh moments and the schedule at its start.

    Args:
        optimizers: nerfstudio's optimisers of a run.
        group: name of the parameter group.
        parameters: what it updates from now on.
    """
    optimizer = optimizers.optimizers[group]
    optimizers.parameters[group] = list(parameters)
    optimizer.state.clear()
    optimizer.param_groups[0]["params"] = list(parameters)
    restart_schedule(optimizers, group)


def restart_schedule(optimizers: Optimizers, group: str) -> None:
    """Set the learning rate of a group back to its configured start."""
    optimizer, initial = optimizers.optimizers[group], optimizers.config[group]["optimizer"].lr
    for param_group in optimizer.param_groups:
        param_group["lr"] = param_group["initial_lr"] = initial
    if group in optimizers.schedulers:
        # The same schedule object would go on counting; a new one starts at step 0.
        scheduler_config = optimizers.config[group]["scheduler"]
        optimizers.schedulers[group] = scheduler_config.setup().get_scheduler(optimizer=optimizer, lr_init=initial)


def scale_learning_rate(optimizers: Optimizers, group: str, factor: float) -> None:
    """Multiply the present and all later learning rates of a group; moments and schedule go on.

    The change is part of the optimiser's and the scheduler's state, so it survives a checkpoint.
    """
    for param_group in optimizers.optimizers[group].param_groups:
        param_group["lr"] *= factor
        if "initial_lr" in param_group:
            param_group["initial_lr"] *= factor
    scheduler = optimizers.schedulers.get(group)
    if scheduler is not None:
        scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]
        scheduler._last_lr = [rate * factor for rate in scheduler.get_last_lr()]


def follow_decay(optimizers: Optimizers, group: str, decay_steps: int) -> None:
    """Let the learning rate of a group fall from where it is, to a tenth every ``decay_steps`` steps.

    Raises:
        TypeError: the group's schedule is not a :class:`PerStepDecayConfig`, as which a checkpoint would restore it.
    """
    if not isinstance(optimizers.config[group]["scheduler"], PerStepDecayConfig):
        raise TypeError(f"the schedule of {group} must be a PerStepDecayConfig")
    optimizer = optimizers.optimizers[group]
    for param_group in optimizer.param_groups:
        param_group["initial_lr"] = param_group["lr"]
    optimizers.schedulers[group] = LambdaLR(optimizer, TenthEvery(decay_steps))
