"""Several training stages in one run: what each of them does at its start, at each of its steps, and at its end.

A model *has* a :class:`StageMachine`, made of the :class:`Stage` objects that its settings list
(:meth:`~perception.studio.model.RadianceModelConfig.stages`). nerfstudio has one loop and one count of steps; the
machine tells which stage a step belongs to, and calls the hooks of that stage. It carries a resumed run as well: which
stage a checkpoint is of is the model's buffer ``stage``.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from perception.studio.training_run import Iteration, TrainingRun

if TYPE_CHECKING:
    from perception.studio.model import RadianceModel

UNTRAINED = -1
"""The model's ``stage`` before its first step."""


class StageSettings(Protocol):
    """What the settings of every stage have."""

    iters: int


ModelT = TypeVar("ModelT", bound="RadianceModel")
SettingsT = TypeVar("SettingsT", bound=StageSettings)


class Stage(Generic[ModelT, SettingsT]):
    """One stage of a method's training; a subclass overrides the hooks in which it does something.

    A stage keeps nothing between two calls. What a resumed run needs lies in buffers of the model, and what a step
    draws is a function of the run's seed and the step.

    Args:
        name: of the field of the model's settings that holds this stage's. A stage that comes several times adds a
            number, as in ``"pilot.3"``.
        settings: at least ``iters``, the number of steps.
    """

    def __init__(self, name: str, settings: SettingsT):
        self.name = name
        self.settings = settings
        self.span = Span(0, name, 0, settings.iters)  # the machine sets it

    def start(self, run: TrainingRun[ModelT]) -> None:
        """Right before its first step: make what it trains, say what optimisers do (``run.restart(...)``), choose the
        pixels (``run.manager.use(...)``)."""

    def take_up(self, run: TrainingRun[ModelT]) -> None:
        """Right before the first step of a resumed run that began this stage earlier. The model and the optimisers are
        as the checkpoint has them; the choice of pixels is not in it."""

    def before_step(self, run: TrainingRun[ModelT], local: int) -> None:
        """Before each step, counted from 1 within the stage: growth, masks."""

    def train_iteration(self, run: TrainingRun[ModelT]) -> Iteration:
        """One step of training. This one takes the loss from the model, once; a stage with several optimisers that
        take turns writes its own from the same parts of ``run``."""
        run.zero_grad()
        with run.autocast():
            _, losses, metrics = run.pipeline.get_train_loss_dict(step=run.step)
            loss = functools.reduce(torch.add, losses.values())
        run.backward(loss)
        self.after_backward(run, self.span.local(run.step))
        run.optimizer_step()
        return run.end_iteration(loss, losses, metrics)

    def after_backward(self, run: TrainingRun[ModelT], local: int) -> None:
        """Between the gradients and the optimisers' step, where total variation is added."""

    def after_step(self, run: TrainingRun[ModelT], local: int) -> None:
        """After each step, counted from 1 within the stage."""

    def end(self, run: TrainingRun[ModelT]) -> None:
        """After its last step, before the checkpoint of that step."""

    def finish(self, run: TrainingRun[ModelT]) -> None:
        """After the whole run and its last checkpoint, if this is the last stage."""

    def rebuild(self, model: ModelT, state_dict: Mapping[str, Tensor]) -> None:
        """Give the model the shape in which a checkpoint of this stage is, before it is loaded.

        Parameter objects must stay (``parameter.data = ...``): a resumed run's optimisers hold them already.
        """


@dataclass(frozen=True)
class Span:
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

    Raises:
        ValueError: a stage has no steps.
    """

    def __init__(self, lengths: Sequence[tuple[str, int]]):
        self.stages: list[Span] = []
        start = 0
        for index, (name, steps) in enumerate(lengths):
            if steps < 1:
                raise ValueError(f"stage {name} needs at least 1 step, not {steps}")
            self.stages.append(Span(index, name, start, start + steps))
            start += steps
        self.total_steps = start
        self._starts = [stage.start for stage in self.stages]

    def at(self, step: int) -> Span:
        """The stage of a step; the last one for any step after the end."""
        return self.stages[bisect_right(self._starts, step) - 1]

    def __str__(self) -> str:
        return ", ".join(f"{stage.name} {stage.end - stage.start}" for stage in self.stages)


class StageMachine:
    """Runs the stages of a model, one after another.

    Args:
        stages: in order; none for a method that trains in one piece.
        model: which has a buffer ``stage`` where there are stages.
    """

    def __init__(self, stages: Sequence[Stage], model: RadianceModel):
        self.stages = list(stages)
        self.schedule = schedule_of(stages)
        for stage, span in zip(self.stages, self.schedule.stages):
            stage.span = span
        self._model = model
        self._run: TrainingRun | None = None
        self._in_step: int | None = None  # index of the stage that this process has begun or taken up

    @property
    def present(self) -> Stage | None:
        """The stage that the model is in; none before the first step and where there are no stages."""
        number = int(self._model.stage) if self.stages else UNTRAINED
        return self.stages[number] if number > UNTRAINED else None

    @property
    def run(self) -> TrainingRun:
        """The run that trains the model.

        Raises:
            RuntimeError: it is not being trained.
        """
        if self._run is None:
            raise RuntimeError("the model is not being trained")
        return self._run

    def callbacks(self, attributes: TrainingCallbackAttributes) -> list[TrainingCallback]:
        """What nerfstudio's trainer must call."""
        self._run = TrainingRun(attributes)
        if self.stages and int(self._model.stage) == UNTRAINED:
            CONSOLE.log(f"Stages: {self.schedule} steps")
        return [
            TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], self._before_step),
            TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], self._after_step),
            TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN], self._after_run),
        ]

    def train_iteration(self) -> Iteration:
        """One step of training, by the stage that it belongs to."""
        return self._at(self.run.step).train_iteration(self.run)

    def rebuild(self, state_dict: Mapping[str, Tensor]) -> None:
        """Give the model the shape of a checkpoint, before it is loaded."""
        number = int(state_dict.get("stage", torch.tensor(UNTRAINED)))
        if UNTRAINED < number < len(self.stages):
            self.stages[number].rebuild(self._model, state_dict)

    def _at(self, step: int) -> Stage:
        return self.stages[self.schedule.at(step).index] if self.stages else WHOLE

    def _before_step(self, step: int) -> None:
        self.run.step = step
        if not self.stages:
            return
        stage = self._at(step)
        if stage.span.index > int(self._model.stage):
            stage.start(self.run)
            self._model.stage.fill_(stage.span.index)
        elif self._in_step is None:
            stage.take_up(self.run)
        self._in_step = stage.span.index
        stage.before_step(self.run, stage.span.local(step))

    def _after_step(self, step: int) -> None:
        if not self.stages:
            return
        stage = self._at(step)
        stage.after_step(self.run, stage.span.local(step))
        if step == stage.span.end - 1:
            stage.end(self.run)

    def _after_run(self, step: int) -> None:
        if not self.stages:
            return
        if step == self.schedule.total_steps - 1:
            self.stages[-1].finish(self.run)
            return
        CONSOLE.log(
            f"Stopped in stage {self.schedule.at(step).name} at step {step} of {self.schedule.total_steps}: nothing is "
            "written yet but the checkpoint. Continue with --load-dir and the run's nerfstudio_models folder."
        )


@dataclass(frozen=True)
class _Endless:
    iters: int = 1 << 62


WHOLE: Stage[Any, Any] = Stage("training", _Endless())
"""Stands for the training of a method without stages."""


def schedule_of(stages: Sequence[Stage]) -> StageSchedule:
    """The names and steps of stages.

    Raises:
        ValueError: a stage has no steps.
    """
    return StageSchedule([(stage.name, stage.settings.iters) for stage in stages])
