"""Several training stages in one run: which one a step belongs to, and what a change of stage does to optimisers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from nerfstudio.engine.optimizers import Optimizers
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.nn import Parameter


@dataclass(frozen=True)
class Stage:
    """A named range of training steps."""

    index: int
    name: str
    start: int
    end: int  # exclusive

    def local(self, step: int) -> int:
        """Number of a step within the stage, counted from 1."""
        return step - self.start + 1


class StageSchedule:
    """Stages that follow each other from step 0.

    Args:
        lengths: (name, number of steps) in order.
    """

    def __init__(self, lengths: Sequence[tuple[str, int]]):
        self.stages: list[Stage] = []
        start = 0
        for index, (name, steps) in enumerate(lengths):
            if steps < 1:
                raise ValueError(f"stage {name} needs at least 1 step, not {steps}")
            self.stages.append(Stage(index, name, start, start + steps))
            start += steps
        self.total_steps = start

    def at(self, step: int) -> Stage:
        """The stage of a step; the last one for any step after the end."""
        for stage in self.stages:
            if step < stage.end:
                return stage
        return self.stages[-1]

    def __str__(self) -> str:
        return ", ".join(f"{stage.name} {stage.end - stage.start}" for stage in self.stages)


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


@contextmanager
def progress_bar(description: str, total: int) -> Iterator:
    """Shows how far a long pass between two steps is; gives a function that takes how much has been done since."""
    columns = (TextColumn("[progress.description]{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), transient=True) as progress:
        task = progress.add_task(description, total=total)
        yield lambda advance=1: progress.advance(task, advance)
