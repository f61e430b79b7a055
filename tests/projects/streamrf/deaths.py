"""Runs that end themselves with SIGKILL, each in a process of its own."""

import multiprocessing
import os
import signal
from pathlib import Path

from tests.projects.streamrf.videos import make_trainer, small_config

BASE, FIRST_PILOT, FIELD = 20, 40, 4  # steps
MOST_SECONDS = 600

_CONTEXT = multiprocessing.get_context("forkserver")
# Forks of a process that has imported all and started no thread.
_CONTEXT.set_forkserver_preload(["tests.projects.streamrf.deaths", "projects.streamrf.container"])


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _at_step(trainer, number: int) -> None:
    step = trainer.train_iteration

    def train_iteration(present):
        if present == number:
            _kill()
        return step(present)

    trainer.train_iteration = train_iteration


def _before_the_name(part: str) -> None:
    """As a finished file is about to get its name, which holds ``part``."""
    replace = os.replace

    def killing(source, target, **options):
        if part in str(target):
            _kill()
        return replace(source, target, **options)

    os.replace = killing


FIRST_FRAME = BASE + FIRST_PILOT  # the step with which frame 1 begins
STEPS = {
    "base": 13,
    "first pilot": BASE + 23,
    "pilot": FIRST_FRAME + 2 * FIELD + 2,
    "full step": FIRST_FRAME + 3 * FIELD + 2,
}
FILES = {
    "a file of the stream": "frame_000002",
    "a checkpoint": f"step-{FIRST_FRAME + 4 * FIELD - 1:09d}",
}


def _run(data: Path, out: Path, death: str) -> None:
    trainer = make_trainer(small_config(data, out))
    if death in STEPS:
        _at_step(trainer, STEPS[death])
    else:
        _before_the_name(FILES[death])
    trainer.train()


def die(data: Path, out: Path, death: str) -> int:
    """Train until a run dies, and say how: minus the number of the signal."""
    process = _CONTEXT.Process(target=_run, args=(data, out, death))
    process.start()
    process.join(MOST_SECONDS)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f"a run that was to die within {MOST_SECONDS} s did not")
    return process.exitcode
