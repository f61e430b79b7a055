"""Errors that are the user's to mend, and how a command line reports them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import NoReturn

from . import torchrun


class UserError(Exception):
    """Something the user can put right; the message is one sentence that says how."""


# What torch makes of an exception in another process: its class is kept, and the traceback becomes the message.
_FROM_A_WORKER = re.compile(r"Caught \w+ in .+\.\nOriginal Traceback \(most recent call last\):\n")


def sentence(error: UserError) -> str:
    """The message of an error, also of one that was raised in a worker process of a data loader."""
    text = str(error)
    if not _FROM_A_WORKER.match(text):
        return text
    # The last exception of the traceback is the error itself; those before it are its causes.
    name = f"{type(error).__module__}.{type(error).__qualname__}: "
    return text.rpartition(f"\n{name}")[2].strip()


def run_cli(main: Callable[[], int | None]) -> NoReturn:
    """Runs ``main`` and exits: its return value, 1 with one sentence for a :class:`UserError`, 130 on Ctrl-C.

    Of the processes that a torchrun started, none prints: torchrun prints the sentence of the first that failed.
    """
    try:
        sys.exit(main())
    except UserError as error:
        text = f"error: {sentence(error)}"
        sys.exit(1 if torchrun.tell(text) else text)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except Exception:
        if torchrun.told():  # what fails because another process has gone says nothing new
            sys.exit(1)
        raise
