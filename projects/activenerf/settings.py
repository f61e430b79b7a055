"""The numbers of the recipe, and what of them can be refused before a run begins."""

from __future__ import annotations

from dataclasses import dataclass

from perception.studio.errors import SceneError


@dataclass
class TrainingSettings:
    """The one stage of training, within which views are acquired."""

    iters: int = 500_000
    """Training steps."""
    precrop_iters: int = 0
    """Steps that draw rays from the middle of the images alone, which keeps scenes with much background from turning
    into nothing but that."""
    precrop_frac: float = 0.5
    """The share of width and height that the middle is."""


def check_acquisition(iters: int, active_iters: tuple[int, ...], choose_k: int, ds_rate: int) -> None:
    """Raise where views could not be acquired as the settings say.

    Raises:
        SceneError: the message names the option.
    """
    steps = list(active_iters)
    if steps != sorted(set(steps)) or (steps and steps[0] < 1):
        raise SceneError(f"--pipeline.model.active-iters must ascend from at least 1, not {_listed(steps)}")
    if steps and steps[-1] >= iters:
        raise SceneError(
            f"--pipeline.model.active-iters {_listed(steps)}: training ends after {iters} steps "
            "(--pipeline.model.training.iters)"
        )
    for name, value in (("choose-k", choose_k), ("ds-rate", ds_rate)):
        if value < 1:
            raise SceneError(f"--pipeline.model.{name} must be at least 1, not {value}")


def check_precrop(training: TrainingSettings) -> None:
    """Raise where the middle of the images is nothing, or more than all.

    Raises:
        SceneError: so it is.
    """
    if training.precrop_iters < 0:
        raise SceneError(f"--pipeline.model.training.precrop-iters must not be negative, but {training.precrop_iters}")
    if not 0 < training.precrop_frac <= 1:
        raise SceneError(f"--pipeline.model.training.precrop-frac must lie in (0, 1], not {training.precrop_frac}")


def _listed(steps: list[int]) -> str:
    return " ".join(map(str, steps))
