"""Command lines that make a data set, which appears whole or not at all."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from .errors import UserError


def run_maker(program: str, out: Path, make: Callable[[], None], interrupted: str = "nothing was written") -> None:
    """Runs `make`; an interruption and errors that are the user's to mend end the program with one sentence.

    Args:
        program: its name, which the sentence begins with.
        out: what is made, for errors of the system that name no file.
        make: leaves nothing half-done when it raises.
        interrupted: what an interruption leaves.
    """
    # Without a handler a terminated run could not clean up after itself.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        make()
    except KeyboardInterrupt:
        fail(program, f"interrupted; {interrupted}", status=130)
    except OSError as error:
        fail(program, f"cannot write {error.filename or out}: {error.strerror}" if error.strerror else str(error))
    except (UserError, ValueError) as error:
        fail(program, str(error))
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def image_progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, as a function of the number of finished images and their total."""
    with tqdm(unit="image", disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def fail(program: str, message: str, *, status: int = 1) -> NoReturn:
    """Ends the program with one sentence."""
    print(f"{program}: {message}", file=sys.stderr)
    sys.exit(status)
