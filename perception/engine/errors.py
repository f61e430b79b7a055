"""Errors that are the user's to mend, and how a command line reports them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from . import torchrun


class UserError(Exception):
    """Something the user can put right; the message is one sentence that says how."""


def run_cli(main: Callable[[], int | None]) -> NoReturn:
    """Runs ``main`` and exits: its return value, 1 with one sentence for a :class:`UserError`, 130 on Ctrl-C.

    Of the processes that a torchrun started, none prints: torchrun prints the sentence of the first that failed.
    """
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(1 if torchrun.tell(f"error: {error}") else f"error: {error}")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except Exception:
        if torchrun.told():  # what fails because another process has gone says nothing new
            sys.exit(1)
        raise
