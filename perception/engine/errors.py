"""Errors that are the user's to mend, and how a command line reports them."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from . import torchrun


class UserError(Exception):
    """Something the user can put right; the message is one sentence that says how."""


# What no program can do anything about: no room, no permission.
_OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
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
    """Runs ``main`` and exits: its return value, 130 on Ctrl-C, 1 with one sentence for a :class:`UserError`, a full
    disk and a missing permission.

    Of the processes that a torchrun started, none prints: torchrun prints the sentence of the first that failed.
    """
    try:
        sys.exit(main())
    except UserError as error:
        _fail(sentence(error))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except Exception as error:
        if torchrun.told():  # what fails because another process has gone says nothing new
            sys.exit(1)
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            _fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
        raise


def _fail(text: str) -> NoReturn:
    text = f"error: {text}"
    sys.exit(1 if torchrun.tell(text) else text)
