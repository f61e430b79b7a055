"""Finding and reading the checkpoints of runs; whatever is wrong with them is one sentence."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from perception.studio.errors import SceneError

if TYPE_CHECKING:
    from nerfstudio.engine.trainer import TrainerConfig

NAME = re.compile(r"step-(\d{9})\.ckpt")
ENTRIES = {"step", "pipeline", "optimizers", "scalers"}


def read_run(config_path: Path) -> TrainerConfig:
    """The settings of a run, from its config.yml.

    Raises:
        SceneError: there is no such file, or it is not one that a run writes.
    """
    from nerfstudio.engine.trainer import TrainerConfig

    if not config_path.is_file():
        raise SceneError(f"there is no {config_path}: name the folder of a run, which holds config.yml")
    try:
        # A run's own settings, written and read by nerfstudio in the same way.
        config = yaml.load(config_path.read_text(), Loader=yaml.Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, ValueError, AttributeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise SceneError(f"{config_path} is not the config.yml of a run: {reason}") from None
    if not isinstance(config, TrainerConfig):
        raise SceneError(f"{config_path} is not the config.yml of a run")
    return config


def saved_steps(folder: Path) -> list[int]:
    """The steps whose checkpoints lie in a folder, ascending; other files do not count."""
    found = (NAME.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in found if match)


def latest_checkpoint(folder: Path) -> Path:
    """The checkpoint of the last step in a folder.

    Raises:
        SceneError: there is none.
    """
    steps = saved_steps(folder) if folder.is_dir() else []
    if not steps:
        raise SceneError(f"{folder} holds no checkpoint (step-*.ckpt)")
    return folder / f"step-{steps[-1]:09d}.ckpt"


def chosen_checkpoint(config: TrainerConfig) -> Path | None:
    """The file that a run is to go on from, by `--load-dir`, `--load-step` and `--load-checkpoint`.

    Raises:
        SceneError: there is no such file, or the options contradict each other.
    """
    folder, file, step = config.load_dir, config.load_checkpoint, config.load_step
    if folder is not None and file is not None:
        raise SceneError("--load-dir and --load-checkpoint both name what to go on from: give one of them")
    if step is not None and folder is None:
        raise SceneError(f"--load-step {step} needs --load-dir, a run's nerfstudio_models folder")
    if file is not None:
        if not file.is_file():
            raise SceneError(f"--load-checkpoint: there is no file {file}")
        return file
    if folder is None:
        return None
    steps = saved_steps(folder) if folder.is_dir() else []
    if not steps:
        raise SceneError(
            f"--load-dir {folder} holds no checkpoint (step-*.ckpt); it is a run's nerfstudio_models folder"
        )
    if step is not None and step not in steps:
        raise SceneError(f"--load-dir {folder} holds no checkpoint of step {step}, but of {_counted(steps)}")
    return folder / f"step-{steps[-1] if step is None else step:09d}.ckpt"


def load_training_checkpoint(path: Path, groups: set[str]) -> dict[str, Any]:
    """Read a run's checkpoint onto the CPU.

    Args:
        path: the file.
        groups: names of the parameter groups that the run trains.

    Raises:
        UserError: it is damaged, cut short or foreign, or of other parameter groups.
    """
    from perception.engine.checkpoint import load_checkpoint_file  # imports MMEngine

    state = load_checkpoint_file(path)
    missing = ENTRIES - state.keys()
    if missing or not isinstance(state.get("step"), int) or not isinstance(state.get("optimizers"), dict):
        raise SceneError(f"{path} is not a checkpoint of a nerfstudio run: it lacks {', '.join(sorted(missing))}")
    if state["optimizers"].keys() != groups:
        raise SceneError(
            f"{path} is of another method: it trains {_names(state['optimizers'])}, this one {_names(groups)}"
        )
    return state


def check_folder_for_evaluation(folder: Path) -> None:
    """Raise where `ns-eval`, `ns-render`, `ns-export` and `ns-viewer` would stumble over a run's checkpoints: they take
    a step from the name of every file in the folder, and the last one's content as it is.

    Args:
        folder: of the checkpoints; one that does not exist yet is fine.

    Raises:
        SceneError: it holds other files, or its last checkpoint is cut short.
    """
    if not folder.is_dir():
        return
    others = sorted(path.name for path in folder.iterdir() if not NAME.fullmatch(path.name))
    if others:
        raise SceneError(
            f"{folder} holds {others[0]} beside the checkpoints (step-*.ckpt), which nerfstudio's commands cannot pass "
            "over: move it away"
        )
    steps = saved_steps(folder)
    if steps and not zipfile.is_zipfile(folder / f"step-{steps[-1]:09d}.ckpt"):
        before = f": without it the one of step {steps[-2]} counts" if len(steps) > 1 else ""
        raise SceneError(f"{folder / f'step-{steps[-1]:09d}.ckpt'} is damaged or cut short{before}")


def _counted(steps: list[int]) -> str:
    shown = ", ".join(map(str, steps[-5:]))
    return f"{len(steps)} others, the last ones {shown}" if len(steps) > 5 else f"step {shown}"


def _names(groups: Any) -> str:
    return ", ".join(sorted(groups))
