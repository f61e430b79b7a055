"""Errors that are the user's to mend, and how a command line reports them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn


class UserError(Exception):
    """Something the user can put right; the message is one sentence that says how."""


def run_cli(main: Callable[[], int | None]) -> NoReturn:
    """Runs ``main`` and exits: its return value, 1 with one sentence for a :class:`UserError`, 130 on Ctrl-C."""
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
