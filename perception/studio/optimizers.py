"""Optimiser and learning-rate settings of voxel grids, in nerfstudio's form."""

from __future__ import annotations

from dataclasses import dataclass, field

from nerfstudio.engine.optimizers import OptimizerConfig
from nerfstudio.engine.schedulers import Scheduler, SchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from perception.radiance.optim import MaskedAdam


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


class TenthEvery:
    """``0.1 ** (step / decay_steps)``; an object and not a function, so that a checkpoint can hold it."""

    def __init__(self, decay_steps: int):
        if decay_steps < 1:
            raise ValueError(f"decay_steps must be at least 1, not {decay_steps}")
        self.decay_steps = decay_steps

    def __call__(self, step: int) -> float:
        return 0.1 ** (step / self.decay_steps)
